#!/usr/bin/env bash
# Runs every fuzz target for as long as the first argument says (20s) and prints a row of the ledger in docs/fuzzing.md for each.
# Ends with 1 when a target found an input that breaks its property; go test has stored it under testdata/fuzz then.
set -uo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-20s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
total=0
status=0
printf '| package | target | executions | result |\n|---|---|---|---|\n'
while read -r dir name; do
	result=held
	if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$dir" >"$log" 2>&1; then
		result=BROKEN
		status=1
		cat "$log" >&2
	fi
	execs=$(grep -o 'execs: [0-9]*' "$log" | tail -n 1 | grep -o '[0-9]*')
	total=$((total + ${execs:-0}))
	printf '| `%s` | `%s` | %s | %s |\n' "${dir#./}" "$name" "${execs:-0}" "$result"
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|/[^/]*:func | |' | sort)
printf '| | in all | %s | |\n' "$total"
exit "$status"
