// Says what the vendors' own libraries make of minted tokens: one JSON line in, one out. twilio-node makes the token that it would sign itself,
// Vapi's documentation signs with jsonwebtoken; that library, which both use, verifies Keyward's, with the right key and with another, before
// its end and after.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import twilio from 'twilio';

const require = createRequire(import.meta.url);
const jsonwebtoken = createRequire(require.resolve('twilio'))('jsonwebtoken'); // the one that twilio-node has

const camel = (object) => Object.fromEntries(Object.entries(object).map(([k, v]) => [k.replace(/_./g, (s) => s[1].toUpperCase()), v]));
const { AccessToken } = twilio.jwt;
const grants = { voice: AccessToken.VoiceGrant, video: AccessToken.VideoGrant, chat: AccessToken.ChatGrant, sync: AccessToken.SyncGrant };

const own = {
  twilio({ order, account, keySID, key, region }) {
    const token = new AccessToken(account, keySID, key, { identity: order.identity, ttl: order.ttl, region });
    for (const [name, members] of Object.entries(order.grants)) token.addGrant(new grants[name](camel(members)));
    return token.toJwt();
  },
  vapi({ order, account, key }) {
    const [[tag, members]] = Object.entries(order.grants);
    const token = { tag };
    if (Object.keys(members).length > 0) token.restrictions = { enabled: true, ...camel(members) };
    return jsonwebtoken.sign({ orgId: account, token }, key, { expiresIn: order.ttl });
  },
};

function verdict(token, key, clockTimestamp) {
  try {
    jsonwebtoken.verify(token, key, { algorithms: ['HS256'], clockTimestamp });
    return 'good';
  } catch (error) {
    return error.message;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const read = (token) => jsonwebtoken.decode(token, { complete: true });
  const { exp } = read(asked.token).payload;
  const answer = {
    minted: read(asked.token),
    own: read(own[asked.vendor](asked)),
    now: verdict(asked.token, asked.key),
    last: verdict(asked.token, asked.key, exp - 1),
    after: verdict(asked.token, asked.key, exp),
    otherKey: verdict(asked.token, `${asked.key}x`),
  };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
