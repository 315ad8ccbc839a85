#!/usr/bin/env bash
# Makes a release in dist/: programs for Linux and macOS on amd64 and arm64, packed, with SBOMs, Debian packages and checksums. The same commit gives
# the same bytes. VERSION is what git says, unless it is set; PLATFORMS are all, unless it names some.
set -euo pipefail
cd "$(dirname "$0")/.."

export VERSION=${VERSION:-$(git describe --tags --always --dirty)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
case $VERSION in *-dirty) echo "WARNING: there are changes that are not in the commit: this release cannot be made again" >&2 ;; esac

make -s man
rm -rf dist/bin
mkdir -p dist/bin
rm -f dist/keyward_* dist/SHA256SUMS
for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}; do
	GOOS=${platform%/*} GOARCH=${platform#*/} tools/build.sh "dist/bin/keyward_${platform/\//_}"
done
GOFLAGS='' go run -C tools ./release -repo "$PWD" -bin "$PWD/dist/bin" -written "$PWD/dist" -out "$PWD/dist" -version "$VERSION" -epoch "$epoch"
cat dist/SHA256SUMS
