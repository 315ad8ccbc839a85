#!/usr/bin/env bash
# Builds the program: tools/build.sh OUT. The same source gives the same bytes, wherever and whenever it is built: no path of this machine, no
# time and no C compiler takes part. GOOS and GOARCH say for what, VERSION what it calls itself.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
# Where there is no repository (a source archive, a container), VERSION alone says what this is.
vcs=false
git rev-parse --verify -q HEAD >/dev/null 2>&1 && vcs=true
# What the Go runtime is to do otherwise (cmd/keyward/harden_linux.go says why). A program that was built without says it to itself, by starting
# anew.
settings=clobberfree=1,asyncpreemptoff=1
# The flags are all here: a builder's own would change the bytes. GOAMD64 and GOARM64 keep to what every such machine can run.
CGO_ENABLED=0 GOFLAGS='' GOAMD64=v1 GOARM64=v8.0 \
	go build -trimpath -buildvcs=$vcs -ldflags "-s -w -buildid= -X main.version=$version -X runtime.godebugDefault=$settings -X main.builtWith=$settings" -o "$out" ./cmd/keyward
