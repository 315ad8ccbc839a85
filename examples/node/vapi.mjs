import { VapiClient } from '@vapi-ai/server-sdk';
import { apiKey, base } from './keyward.mjs';

// The SDK would send a POST again after a 5xx, and a second call would ring: maxRetries 0.
const vapi = new VapiClient({ token: apiKey, baseUrl: base('vapi'), maxRetries: 0 });

const assistant = await vapi.assistants.create({ name: 'Front desk', firstMessage: 'Hello!' });
const call = await vapi.calls.create({ assistantId: assistant.id, customer: { number: '+15550001' } });
console.log('call', call.id, call.status);

// The typed client reads a chat as a whole; its fetch() streams it, with the same key and base URL.
const chat = await vapi.fetch('/chat', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ assistantId: assistant.id, input: 'Hi', stream: true }),
});
for await (const piece of chat.body.pipeThrough(new TextDecoderStream())) console.log(piece.trim());
