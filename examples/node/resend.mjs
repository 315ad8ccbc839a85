import { Resend } from 'resend';
import { apiKey, base } from './keyward.mjs';

const resend = new Resend(apiKey, { baseUrl: base('resend') });

const { data, error } = await resend.emails.send(
  { from: 'Acme <hello@example.com>', to: 'ada@example.com', subject: 'Hello', text: 'Hello from Node' },
  { idempotencyKey: 'order-1001' },
);
if (error) throw new Error(error.message);
console.log('sent', data.id);
