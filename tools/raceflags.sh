#!/usr/bin/env bash
# Prints go test's flags for the race detector, which needs cgo and so a C compiler; the program itself needs neither. SQLite itself is left
# out: it is C, translated, runs on one goroutine at a time in memory of its own, and takes several times as long under the detector.
set -euo pipefail

if [ "$(go env CGO_ENABLED)" = 1 ] && command -v "$(go env CC)" >/dev/null 2>&1; then
	echo "-race -gcflags=github.com/ncruces/go-sqlite3-wasm/...=-race=false"
elif [ "${CI:-}" = true ]; then
	echo "no C compiler, so no race detector: not in CI" >&2
	exit 1
else
	echo "WARNING: no C compiler or CGO_ENABLED=0: the tests run WITHOUT the race detector" >&2
fi
