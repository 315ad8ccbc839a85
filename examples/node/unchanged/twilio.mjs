import twilio from 'twilio';

const client = twilio(process.env.TWILIO_ACCOUNT_SID, process.env.TWILIO_AUTH_TOKEN);

const message = await client.messages.create({ to: '+15550001', from: '+15550002', body: 'Hello from Node' });
console.log('sent', message.sid, message.status);

for (const service of await client.verify.v2.services.list({ pageSize: 1, limit: 2 })) {
  console.log('verify service', service.friendlyName);
}
