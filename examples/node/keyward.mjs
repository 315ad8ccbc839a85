// How every example finds the sidecar: its unix socket, or its TCP port and a caller token.
import { Agent, setGlobalDispatcher } from 'undici';

const { KEYWARD_SOCKET, KEYWARD_URL = 'http://127.0.0.1:7450', KEYWARD_TOKEN, KEYWARD_ORG } = process.env;

export const socket = KEYWARD_SOCKET;
export const org = KEYWARD_ORG;

// What an SDK gets as its API key: the caller's token. On the socket the kernel says who calls, and any text will do.
export const apiKey = KEYWARD_TOKEN ?? 'unused';

export const url = socket ? 'http://localhost' : KEYWARD_URL;

// The base URL of a provider, for the SDKs that take one. An app that serves many orgs names one each time.
export const base = (provider, forOrg = org) => `${url}/org/${forOrg}/${provider}`;

// From here on fetch(), which most SDKs call, goes to the socket.
if (socket) setGlobalDispatcher(new Agent({ connect: { socketPath: socket } }));
