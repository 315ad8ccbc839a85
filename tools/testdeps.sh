#!/usr/bin/env bash
# Sees to what the tests need besides Go: PostgreSQL's binaries, its pgTAP, PgBouncer, Node 20 with npm, Chromium, curl, nginx and HAProxy as providers
# whose HTTP parsers are not Go's, systemd to check the units with, a C compiler for the race detector, zsh, fish, mandoc and Twilio's SDK for Python. What is missing is installed where that is allowed (root, apt-get): from
# Debian's packages, and Node from npm where Debian's is too old for the
# SDKs. Elsewhere this says what to install, and how to do without.
#
# testdeps.sh --or-without goes on without what cannot be installed: it says so, and prints the variables that leave the tests of it out, for the caller to
# evaluate. In CI nothing is left out.
set -euo pipefail

or_without=
[ "${1:-}" != --or-without ] || [ "${CI:-}" = true ] || or_without=1

has() { command -v "$1" >/dev/null 2>&1; }
no() { local name=KEYWARD_TEST_NO_$1; [ "${!name:-}" = 1 ]; }

# The same places that internal/pgtest looks in.
has_postgres() {
	[ -x "${PGTEST_BIN:-}/initdb" ] || has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
# The same names that console/e2e looks for.
has_chromium() { has chromium || has chromium-browser || has google-chrome || has google-chrome-stable; }
has_cc() { has "$(go env CC)"; }
new_node() { has node && has npm && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]; }

# look fills: missing, packages; optional, whose tests say themselves that they are left out; left, the variables that leave out what is missing;
# without, what each of them costs; old_node.
look() {
	missing=() optional=() left=() without=() old_node=
	lacks() { # VARIABLE, what it costs, packages
		left+=("KEYWARD_TEST_NO_$1=1") without+=("KEYWARD_TEST_NO_$1=1 leaves out $2")
		missing+=("${@:3}")
	}
	# The release that internal/pgtest takes; nothing where PostgreSQL came by other means than Debian's.
	release=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sed 's|.*postgresql/||; s|/bin.*||' | sort -n | tail -1 || true)
	if ! no POSTGRES; then
		has_postgres || lacks POSTGRES "the tests on PostgreSQL" postgresql
		no PGTAP || has_pgtap || lacks PGTAP "the database's own tests" "${release:+postgresql-$release-}pgtap"
		no PGBOUNCER || has pgbouncer || lacks PGBOUNCER "the tests through PgBouncer" pgbouncer
	fi
	if ! no NODE; then
		has node && has npm || lacks NODE "the tests with the Node SDKs" nodejs npm
		new_node || old_node=1
	fi
	no BROWSER || has_chromium || lacks BROWSER "the tests of the console in a browser" chromium fonts-dejavu-core
	no CURL || has curl || lacks CURL "the commands of the documents, and others as they are typed" curl
	has_cc || missing+=(gcc libc6-dev)
	# nginx stands in /usr/sbin, which is not in everybody's PATH.
	PATH=$PATH:/usr/sbin has nginx || optional+=(nginx)
	PATH=$PATH:/usr/sbin has haproxy || optional+=(haproxy)
	has systemd-analyze || optional+=(systemd) # which checks the units
	# Whose completion and whose reading of the manual are tested.
	for p in zsh fish mandoc; do has "$p" || optional+=("$p"); done
	# Twilio's SDK as Debian has it, for Debian's own Python: an app that is intercepted.
	/usr/bin/python3 -c 'import twilio' 2>/dev/null || optional+=(python3-twilio)
}
has_pgtap() { compgen -G "/usr/share/postgresql/${release:-*}/extension/pgtap.control" >/dev/null || [ -e "$(pg_config --sharedir 2>/dev/null)/extension/pgtap.control" ]; }
complete() { [ ${#missing[@]} -eq 0 ] && [ ${#optional[@]} -eq 0 ] && [ -z "$old_node" ]; }

packages() {
	missing+=("${optional[@]}")
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "installing for the tests: ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

newer_node() {
	[ -n "$old_node" ] && has npm && ! new_node || return 0
	local arch
	arch=$(uname -m)
	case $arch in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; esac
	echo "installing for the tests: Node 20 in /usr/local, because $(node --version) is too old for the SDKs" >&2
	npm install --global --prefix /usr/local --no-audit --no-fund --loglevel=error "node-linux-$arch@20" >/dev/null
	hash -r
	new_node || { echo "node is still $(node --version): /usr/local/bin must stand before $(command -v node) in PATH" >&2; return 1; }
}

look
complete && exit 0
if [ "$(id -u)" = 0 ] && has apt-get; then
	installed=1
	packages || installed=
	hash -r
	newer_node || installed=
	[ -z "$installed" ] || exit 0
	echo "WARNING: installing failed" >&2
	look
fi

# These stop nothing: the tests that need them say that they were left out, and raceflags.sh says what a missing compiler loses.
if [ ${#optional[@]} -gt 0 ]; then
	echo "WARNING: not installed here, and left out of the tests: ${optional[*]}" >&2
fi
if [ -n "$old_node" ] && has node && has npm; then
	left+=(KEYWARD_TEST_NO_NODE=1) without+=("KEYWARD_TEST_NO_NODE=1 leaves out the tests with the Node SDKs, which need Node 20 or later")
fi
[ ${#left[@]} -gt 0 ] || exit 0
{
	echo "The tests need what is not installed here: ${missing[*]:-Node 20 or later}"
	[ ${#missing[@]} -eq 0 ] || echo "  Debian, Ubuntu:  sudo apt-get install ${missing[*]}"
	echo "  elsewhere:       the same by your package manager; PGTEST_BIN names the folder with initdb and postgres"
	for w in "${without[@]}"; do echo "  or:              $w"; done
} >&2
[ -n "$or_without" ] || exit 1
echo "WARNING: going on without: ${left[*]}" >&2
echo "export ${left[*]}"
