#!/usr/bin/env bash
# Sees to what the tests need besides Go: PostgreSQL's binaries, Node with npm, curl, a C compiler for the race detector. What is missing is
# installed from Debian's packages where that is allowed (root, apt-get); elsewhere this says what to install, and how to do without.
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }

# The same places that internal/pgtest looks in.
has_postgres() {
	[ -x "${PGTEST_BIN:-}/initdb" ] || has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
has_cc() { has "$(go env CC)"; }

missing=() without=()
if [ "${KEYWARD_TEST_NO_POSTGRES:-}" != 1 ] && ! has_postgres; then
	missing+=(postgresql) without+=("KEYWARD_TEST_NO_POSTGRES=1 leaves out the tests on PostgreSQL")
fi
if [ "${KEYWARD_TEST_NO_NODE:-}" != 1 ]; then
	has node || missing+=(nodejs)
	has npm || missing+=(npm)
	has node && has npm || without+=("KEYWARD_TEST_NO_NODE=1 leaves out the tests with the Node SDKs")
fi
has curl || missing+=(curl)
has_cc || missing+=(gcc libc6-dev)

[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && has apt-get; then
	echo "installing for the tests: ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	exit 0
fi

# A missing compiler stops nothing: raceflags.sh says what is lost.
[ "${missing[*]}" != 'gcc libc6-dev' ] || exit 0
{
	echo "The tests need what is not installed here: ${missing[*]}"
	echo "  Debian, Ubuntu:  sudo apt-get install ${missing[*]}"
	echo "  elsewhere:       the same by your package manager; PGTEST_BIN names the folder with initdb and postgres"
	for w in "${without[@]}"; do echo "  or:              $w"; done
} >&2
exit 1
