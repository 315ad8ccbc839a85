#!/usr/bin/env bash
# Makes the release of the current commit twice and compares: in folders of other names, with another user's mask, time zone and language, and the second
# time from nothing, so that no cache answers in the compiler's place. PLATFORMS as in release.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
git clone -q . "$work/a"
mkdir -p "$work/somewhere else"
git clone -q . "$work/somewhere else/b"
# A clone of a folder has no tags of its own but those that were copied; the name is the same for both.
VERSION=${VERSION:-$(git describe --tags --always)}
export VERSION

(umask 022 && TZ=UTC LC_ALL=C "$work/a/tools/release.sh" >/dev/null)
(umask 077 && TZ=Pacific/Auckland LC_ALL=C.UTF-8 GOCACHE="$work/cache" GOFLAGS=-mod=mod "$work/somewhere else/b/tools/release.sh" >/dev/null)

cd "$work/a/dist"
sha256sum --quiet -c SHA256SUMS
cd "$work/somewhere else/b/dist"
sha256sum --quiet -c SHA256SUMS
if ! cmp "$work/a/dist/SHA256SUMS" SHA256SUMS; then
	diff "$work/a/dist/SHA256SUMS" SHA256SUMS >&2 || true
	echo "two builds of the same commit differ" >&2
	exit 1
fi
echo "two builds of $VERSION are the same, byte for byte:"
cat SHA256SUMS
