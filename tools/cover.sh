#!/usr/bin/env bash
# Prints which share of each package's statements the tests reach, out of cover.out, and ends with 1 when a package that a request or a secret passes
# through is below 90 %. What several packages' tests reach counts once.
set -euo pipefail
cd "$(dirname "$0")/.."

least=90
core=' proxy cache seal webhook provider store '
awk -v least=$least -v core="$core" '
	NR == 1 { next } # mode:
	{
		# PACKAGE/FILE.go:FROM,TO STATEMENTS COUNT
		statements[$1] = $2
		if ($3 > 0) reached[$1] = 1
	}
	END {
		for (block in statements) {
			file = block
			sub(/:.*/, "", file)
			package = file
			sub(/\/[^\/]*$/, "", package)
			sub(/^github.com\/keyward\/keyward\/?/, "", package)
			all[package] += statements[block]
			if (block in reached) hit[package] += statements[block]
		}
		for (package in all) {
			share = 100 * hit[package] / all[package]
			is_core = index(core, " " package " ") > 0
			low = is_core && share < least
			printf "%6.1f %%  %-24s %6d statements%s\n", share, package, all[package], low ? "  BELOW " least " %" : "" | "sort -k3"
			total += all[package]
			total_hit += hit[package]
			if (low) failed = 1
		}
		close("sort -k3")
		printf "%6.1f %%  in all\n", 100 * total_hit / total
		exit failed
	}
' cover.out
