import twilio from 'twilio';
import { apiKey, base, socket } from './keyward.mjs';

// Twilio's SDK takes no base URL, but an HTTP client: this one puts the sidecar in front of every host, of page 2 as well.
class Sidecar extends twilio.RequestClient {
  constructor() {
    super();
    this.axios.defaults.socketPath = socket;
  }

  request(options) {
    const { hostname, pathname, search } = new URL(options.uri);
    return super.request({ ...options, uri: base(hostname) + pathname + search });
  }
}

// ACkeyward stands for the org's own account SID.
const client = twilio('ACkeyward', apiKey, { httpClient: new Sidecar() });

const message = await client.messages.create({ to: '+15550001', from: '+15550002', body: 'Hello from Node' });
console.log('sent', message.sid, message.status);

for (const service of await client.verify.v2.services.list({ pageSize: 1, limit: 2 })) {
  console.log('verify service', service.friendlyName);
}
