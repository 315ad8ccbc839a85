import { google } from 'googleapis';

const auth = new google.auth.OAuth2();
auth.setCredentials({ access_token: process.env.GOOGLE_ACCESS_TOKEN });
const calendar = google.calendar({ version: 'v3', auth });

const { data: list } = await calendar.calendarList.list({ maxResults: 10 });
for (const { summary } of list.items) console.log('calendar', summary);
