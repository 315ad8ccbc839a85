import { fetch, ProxyAgent } from 'undici';

const dispatcher = new ProxyAgent(process.env.HTTPS_PROXY);

const response = await fetch('https://api.elevenlabs.io/v1/voices', {
  dispatcher,
  headers: { 'xi-api-key': process.env.ELEVENLABS_API_KEY },
});
const { voices } = await response.json();
console.log('voice', voices[0].name);
