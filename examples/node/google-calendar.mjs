import { google } from 'googleapis';
import { apiKey, org, url } from './keyward.mjs';

// This SDK drops the path of a base URL: the org and the host go into headers. No OAuth client, no refresh token.
const auth = new google.auth.OAuth2();
auth.setCredentials({ access_token: apiKey });
const calendar = google.calendar({
  version: 'v3',
  auth,
  rootUrl: `${url}/`,
  headers: { 'Keyward-Org': org, 'Keyward-Upstream': 'www.googleapis.com' },
  fetchImplementation: fetch,
});

const { data: list } = await calendar.calendarList.list({ maxResults: 10 });
for (const { summary } of list.items) console.log('calendar', summary);

const { data: event } = await calendar.events.insert({
  calendarId: 'primary',
  requestBody: {
    summary: 'Hello from Node',
    start: { dateTime: '2027-01-04T09:00:00Z' },
    end: { dateTime: '2027-01-04T09:30:00Z' },
  },
});
console.log('event', event.htmlLink);
