// For apps on Node before 22.21 and 24, whose own fetch knows no proxy: NODE_OPTIONS='--import /path/to/preload.mjs'.
import { EnvHttpProxyAgent, setGlobalDispatcher } from 'undici';

setGlobalDispatcher(new EnvHttpProxyAgent());
