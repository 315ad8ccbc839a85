import { ElevenLabsClient, RealtimeEvents } from '@elevenlabs/elevenlabs-js';
import { apiKey, base, org, socket } from './keyward.mjs';

const options = { apiKey, baseUrl: base('elevenlabs'), maxRetries: 0 };
const client = new ElevenLabsClient(options);

let bytes = 0;
for await (const chunk of await client.textToSpeech.stream('21m00Tcm4TlvDq8ikWAM', { text: 'Hello from Node', modelId: 'eleven_multilingual_v2' })) {
  bytes += chunk.length; // the chunks come as ElevenLabs sends them
}
console.log('audio', bytes, 'bytes');

const voice = await client.voices.ivc.create({ name: 'Ada', files: [new File(['pretend that this is audio'], 'ada.mp3', { type: 'audio/mpeg' })] });
console.log('voice', voice.voiceId);

// Realtime speech to text is a WebSocket, and the library below the SDK has its own way to name a socket.
const realtime = socket ? new ElevenLabsClient({ ...options, baseUrl: `ws+unix:${socket}:/org/${org}/elevenlabs` }) : client;
const connection = await realtime.speechToText.realtime.connect({ modelId: 'scribe_v2_realtime', audioFormat: 'pcm_16000', sampleRate: 16000 });
connection.on(RealtimeEvents.SESSION_STARTED, () => {
  connection.send({ audioBase64: Buffer.alloc(3200).toString('base64') });
  connection.commit();
});
connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT, ({ text }) => {
  console.log('transcript', text);
  connection.close();
});
connection.on(RealtimeEvents.ERROR, (error) => {
  throw error;
});
