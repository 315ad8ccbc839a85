import { Resend } from 'resend';

const resend = new Resend(process.env.RESEND_API_KEY);

const { data, error } = await resend.emails.send({
  from: 'Acme <hello@example.com>',
  to: ['someone@example.com'],
  subject: 'Hello from Node',
  text: 'Hello',
});
if (error) throw new Error(error.message);
console.log('sent', data.id);
