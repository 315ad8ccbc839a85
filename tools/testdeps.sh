#!/usr/bin/env bash
# Sees to what the tests need besides Go: PostgreSQL's binaries, its pgTAP, PgBouncer, Node 20 with npm, Chromium, curl, nginx and HAProxy as providers
# whose HTTP parsers are not Go's, systemd to check the units with, a C compiler for the race detector, zsh, fish, mandoc and Twilio's SDK for Python. What is missing is installed where that is allowed (root, apt-get): from
# Debian's packages, and Node from npm where Debian's is too old for the
# SDKs. Elsewhere this says what to install, and how to do without.
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }

# The same places that internal/pgtest looks in.
has_postgres() {
	[ -x "${PGTEST_BIN:-}/initdb" ] || has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
# The same names that console/e2e looks for.
has_chromium() { has chromium || has chromium-browser || has google-chrome || has google-chrome-stable; }
has_cc() { has "$(go env CC)"; }
new_node() { has node && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]; }

missing=() without=()
if [ "${KEYWARD_TEST_NO_POSTGRES:-}" != 1 ] && ! has_postgres; then
	missing+=(postgresql) without+=("KEYWARD_TEST_NO_POSTGRES=1 leaves out the tests on PostgreSQL")
fi
# The release that internal/pgtest takes; nothing where PostgreSQL came by other means than Debian's.
release=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sed 's|.*postgresql/||; s|/bin.*||' | sort -n | tail -1 || true)
has_pgtap() { compgen -G "/usr/share/postgresql/${release:-*}/extension/pgtap.control" >/dev/null || [ -e "$(pg_config --sharedir 2>/dev/null)/extension/pgtap.control" ]; }
if [ "${KEYWARD_TEST_NO_POSTGRES:-}" != 1 ]; then
	if [ "${KEYWARD_TEST_NO_PGTAP:-}" != 1 ] && ! has_pgtap; then
		missing+=("${release:+postgresql-$release-}pgtap") without+=("KEYWARD_TEST_NO_PGTAP=1 leaves out the database's own tests")
	fi
	if [ "${KEYWARD_TEST_NO_PGBOUNCER:-}" != 1 ] && ! has pgbouncer; then
		missing+=(pgbouncer) without+=("KEYWARD_TEST_NO_PGBOUNCER=1 leaves out the tests through PgBouncer")
	fi
fi
if [ "${KEYWARD_TEST_NO_NODE:-}" != 1 ]; then
	has node || missing+=(nodejs)
	has npm || missing+=(npm)
fi
if [ "${KEYWARD_TEST_NO_BROWSER:-}" != 1 ] && ! has_chromium; then
	missing+=(chromium fonts-dejavu-core) without+=("KEYWARD_TEST_NO_BROWSER=1 leaves out the tests of the console in a browser")
fi
has curl || missing+=(curl)
has_cc || missing+=(gcc libc6-dev)
# nginx stands in /usr/sbin, which is not in everybody's PATH.
optional=()
PATH=$PATH:/usr/sbin has nginx || optional+=(nginx)
PATH=$PATH:/usr/sbin has haproxy || optional+=(haproxy)
has systemd-analyze || optional+=(systemd) # which checks the units
# Whose completion and whose reading of the manual are tested.
for p in zsh fish mandoc; do has "$p" || optional+=("$p"); done
# Twilio's SDK as Debian has it, for Debian's own Python: an app that is intercepted.
/usr/bin/python3 -c 'import twilio' 2>/dev/null || optional+=(python3-twilio)

old_node=
[ "${KEYWARD_TEST_NO_NODE:-}" = 1 ] || new_node || old_node=1

[ ${#missing[@]} -gt 0 ] || [ ${#optional[@]} -gt 0 ] || [ -n "$old_node" ] || exit 0

if [ "$(id -u)" = 0 ] && has apt-get; then
	missing+=("${optional[@]}")
	if [ ${#missing[@]} -gt 0 ]; then
		echo "installing for the tests: ${missing[*]}" >&2
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
		hash -r
	fi
	if [ -n "$old_node" ] && ! new_node; then
		arch=$(uname -m)
		case $arch in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; esac
		echo "installing for the tests: Node 20 in /usr/local, because $(node --version) is too old for the SDKs" >&2
		npm install --global --prefix /usr/local --no-audit --no-fund --loglevel=error "node-linux-$arch@20" >/dev/null
		hash -r
		new_node || { echo "node is still $(node --version): /usr/local/bin must stand before $(command -v node) in PATH" >&2; exit 1; }
	fi
	exit 0
fi

# These stop nothing: the tests that need them say that they were left out, and raceflags.sh says what a missing compiler loses.
if [ ${#optional[@]} -gt 0 ]; then
	echo "WARNING: not installed here, and left out of the tests: ${optional[*]}" >&2
	[ ${#missing[@]} -gt 0 ] || [ -n "$old_node" ] || exit 0
fi
[ "${missing[*]} $old_node" != 'gcc libc6-dev ' ] || exit 0
if [ -n "$old_node" ]; then
	without+=("KEYWARD_TEST_NO_NODE=1 leaves out the tests with the Node SDKs, which need Node 20 or later")
fi
{
	echo "The tests need what is not installed here: ${missing[*]:-Node 20 or later}"
	[ ${#missing[@]} -eq 0 ] || echo "  Debian, Ubuntu:  sudo apt-get install ${missing[*]}"
	echo "  elsewhere:       the same by your package manager; PGTEST_BIN names the folder with initdb and postgres"
	for w in "${without[@]}"; do echo "  or:              $w"; done
} >&2
exit 1
