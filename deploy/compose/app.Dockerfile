# The example app: examples/node/voice-agent.mjs with the vendors' SDKs.
FROM node:22-alpine
WORKDIR /app
COPY examples/node/package.json examples/node/package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY examples/node/keyward.mjs examples/node/voice-agent.mjs ./
USER 1000:1000
ENV REPORTS=/tmp/reports
CMD ["node", "voice-agent.mjs"]
