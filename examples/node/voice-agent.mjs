import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { VapiClient } from '@vapi-ai/server-sdk';
import twilio from 'twilio';
import { apiKey, base, socket } from './keyward.mjs';

const { APP_SOCKET, APP_PORT = '3000', REPORTS = 'reports' } = process.env;

// The SDKs, for the org that a call is for. None of them has a key.
class Sidecar extends twilio.RequestClient {
  constructor(org) {
    super();
    this.org = org;
    this.axios.defaults.socketPath = socket;
  }

  request(options) {
    const { hostname, pathname, search } = new URL(options.uri);
    return super.request({ ...options, uri: base(hostname, this.org) + pathname + search });
  }
}
const texting = (org) => twilio('ACkeyward', apiKey, { httpClient: new Sidecar(org) });
const vapi = (org) => new VapiClient({ token: apiKey, baseUrl: base('vapi', org), maxRetries: 0 });

// What the assistant can do while somebody is on the phone. The message has no sender: it gets the org's own number.
const tools = {
  async sendConfirmation({ to, text }, { org }) {
    const { sid } = await texting(org).messages.create({ to, body: text });
    return `sent ${sid}`;
  },
};

// One bad call does not spoil the others: the assistant is told, and says so.
async function run({ id, function: { name, arguments: given } }, from) {
  try {
    const input = typeof given === 'string' ? JSON.parse(given) : given;
    const tool = tools[name];
    return { toolCallId: id, name, result: await tool(input, from) };
  } catch (error) {
    console.error(from.org, name, error.message);
    return { toolCallId: id, name, error: `${name} did not work` };
  }
}

const handlers = {
  // A phone rings, and Vapi waits at most 7.5 s for who is to answer it.
  async 'assistant-request'(_, { org }) {
    const [assistant] = await vapi(org).assistants.list({ limit: 1 });
    return assistant ? { assistantId: assistant.id } : { error: 'Nobody can take this call.' };
  },

  async 'tool-calls'({ toolCallList = [] }, from) {
    return { results: await Promise.all(toolCallList.map((call) => run(call, from))) };
  },

  // What is invoiced. It comes at least once, and again under the same id; a row with that id as its key would do as well as a file.
  'end-of-call-report'({ call, cost, endedReason }, { org, delivery }) {
    const file = join(REPORTS, `${delivery}.json`);
    if (existsSync(file)) return;
    writeFileSync(`${file}.part`, JSON.stringify({ org, call: call.id, cost, endedReason }), { flush: true });
    renameSync(`${file}.part`, file);
  },
};

const server = createServer(async (request, response) => {
  const { headers } = request;
  const from = { org: headers['keyward-org'], assistant: headers['keyward-assistant'], delivery: headers['keyward-delivery-id'] };
  try {
    if (headers['keyward-verified'] !== 'true') return response.writeHead(403).end();
    const { message } = await json(request);
    console.log(message.type, from.org, from.assistant ?? '-', from.delivery ?? '-');
    const answer = await handlers[message.type]?.(message, from);
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer ?? {}));
  } catch (error) {
    console.error(from.org, error.message);
    response.writeHead(500).end(); // a report is delivered again
  }
});

mkdirSync(REPORTS, { recursive: true });
if (APP_SOCKET) rmSync(APP_SOCKET, { force: true });
server.listen(APP_SOCKET ? { path: APP_SOCKET } : { host: '127.0.0.1', port: Number(APP_PORT) }, () => console.log('listening'));
process.on('SIGTERM', () => server.close());
