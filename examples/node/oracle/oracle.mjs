// Says what the vendors' own SDKs make of webhook deliveries: one JSON line in, one out, in the same order. Each delivery is what an app on
// Node's HTTP server would have: merged headers, the raw body, for Twilio the parsed form. An org with several secrets tries one after the other.
import { parse } from 'node:querystring';
import { createInterface } from 'node:readline';
import { ElevenLabsClient } from '@elevenlabs/elevenlabs-js';
import { Webhook } from 'svix';
import twilio from 'twilio';

const elevenlabs = new ElevenLabsClient({ apiKey: 'unused' });

// A repeated header's values are joined, but for a few of which the first counts.
function merge(headers) {
  const merged = {};
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    if (!(key in merged)) merged[key] = value;
    else if (key !== 'content-type' && key !== 'host') merged[key] += `, ${value}`;
  }
  return merged;
}

// As express.urlencoded({ extended: false }) does.
const isForm = (headers) => /^\s*application\/x-www-form-urlencoded\s*(;|$)/i.test(headers['content-type'] ?? '');

const verdicts = {
  twilio({ url }, headers, rawBody, secret) {
    const body = isForm(headers) ? parse(rawBody.toString(), '&', '=', { maxKeys: 0 }) : {};
    const request = { headers, originalUrl: '/', body, rawBody, header: (name) => headers[name.toLowerCase()] };
    return twilio.validateExpressRequest(request, secret, { url });
  },
  async resend(_, headers, rawBody, secret) {
    new Webhook(secret).verify(rawBody, headers);
    return true;
  },
  async elevenlabs(_, headers, rawBody, secret) {
    await elevenlabs.webhooks.constructEvent(rawBody.toString(), headers['elevenlabs-signature'], secret);
    return true;
  },
};

// What is signed but no JSON has been verified: the SDK parses it only afterwards.
async function verdict(delivery, headers, rawBody, secret) {
  try {
    return await verdicts[delivery.provider](delivery, headers, rawBody, secret);
  } catch (error) {
    return error instanceof SyntaxError;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const delivery = JSON.parse(line);
  Date.now = () => delivery.now; // the moment that it arrives, for SDK and sidecar alike
  const headers = merge(delivery.headers);
  const rawBody = Buffer.from(delivery.body ?? '', 'base64');
  let verified = false;
  for (const secret of delivery.secrets) verified ||= await verdict(delivery, headers, rawBody, secret);
  process.stdout.write(`${verified}\n`);
}
