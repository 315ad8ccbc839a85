#!/usr/bin/env bash
# Runs the tests of the program and of the modules beside it under the race detector, in two lanes side by side, one package at a time in each:
# most tests wait for something, and several hold the program to time limits that a machine of two cores keeps only for a few.
# TESTFLAGS are further flags for go test.
set -euo pipefail
cd "$(dirname "$0")/.."

race=$(tools/raceflags.sh)
# The detector sleeps for a second whenever a process ends, in case a race still shows: here in each of the many that tests start.
export race GORACE="atexit_sleep_ms=50 ${GORACE:-}"

# What a lane takes next: a module's folder and its packages; the longest first, so that no lane is alone with a long one at the end.
parts=(
	'. ./cmd/keyward'
	'. ./proxy ./cache ./webhook'
	'. ./bench/...'
	'examples ./...'
	'. ./store'
	'. ./admin ./assistant ./keysource'
	'deploy/test ./...'
	'deploy/check ./...'
	'tools ./release'
)
named=$(printf '%s\n' "${parts[@]}" | sed -n 's/^\. //p' | xargs go list)
# The attacks on the built program have the machine to themselves.
rest=$(go list ./... | grep -vxF "$named" | grep -v /torture$)
parts+=(". ${rest//$'\n'/ }")

lane() {
	cd "$1"
	shift
	case $PWD in
	*/deploy/* | */tools) race= ;; # what they test is a process of its own, and built without
	esac
	# shellcheck disable=SC2086 # several flags
	go test $race -p 1 -timeout 20m -skip "Allocate|HitRate" ${TESTFLAGS:-} "$@"
}
export -f lane

# Compiled by both cores before: a lane that compiles takes the processor from a test that keeps time.
# shellcheck disable=SC2086
go list -test -export $race ./... >/dev/null
printf '%s\n' "${parts[@]}" | xargs -L 1 -P 2 bash -euc 'lane "$@"' lane
