# Keyward's tasks. `make help` lists them; CONTRIBUTING.md says when to use which.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME  ?= 20s
BENCHTIME ?= 1s
RACECOUNT ?= 3
SOAK      ?= 1h
# Further flags for go test and for the program, as in `make test TESTFLAGS=-v` and `make run ARGS='--listen 127.0.0.1:7460'`.
TESTFLAGS ?=
ARGS      ?=

TOOL := go tool -modfile=$(CURDIR)/tools/go.mod
# The packages that a request passes through.
HOT  := ./caller ./cache ./credential ./provider ./proxy ./seal

.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## builds Keyward and starts it with stand-ins for all providers and a demo org: no account, no key, no set-up
	@exec bin/keyward serve --dev $(ARGS)

.PHONY: build
build: ## builds bin/keyward, a static binary
	@VERSION=$(VERSION) tools/build.sh bin/keyward

.PHONY: release
release: ## makes dist/: programs for Linux and macOS, Debian packages, SBOMs, checksums
	@tools/release.sh

.PHONY: release-test
release-test: ## makes the release twice, the second time from nothing, and compares (some minutes)
	@tools/reproducible.sh

.PHONY: man
man: build ## writes dist/man/keyward.1 and dist/completion/ from the program's own help
	@mkdir -p dist/man dist/completion
	@bin/keyward help --man >dist/man/keyward.1
	@for shell in bash zsh fish; do bin/keyward completion $$shell >dist/completion/keyward.$$shell; done

.PHONY: generate
generate: ## writes what is generated: the flag table in docs/cli.md and the like
	go generate ./...

# Allocations are counted without the race detector, which makes some of its own, and so are the cache's hits: with it sync.Pool forgets at random,
# and ristretto with that what it was asked for. The attacks on the built program (their quick forms) run alone, without the race detector: the
# program is a process of its own, and none of theirs. What is built without it is built with the same flags everywhere, and so only once.
.PHONY: test
test: export GOFLAGS := -trimpath $(GOFLAGS)
test: build ## runs all tests: race detector, SQLite and PostgreSQL, the vendors' SDKs, the console in Chromium; installs what they need when it may, says what it had to leave out
	@without=$$(tools/testdeps.sh --or-without); eval "$$without"; \
	TESTFLAGS='$(TESTFLAGS)' tools/lanes.sh; \
	export CGO_ENABLED=0; \
	go test $(TESTFLAGS) ./torture; \
	go test -run 'Allocate|HitRate' $(TESTFLAGS) $(HOT); \
	(cd console/e2e && go test -timeout 20m $(TESTFLAGS) ./...); \
	[ -z "$$without" ] || echo "WARNING: NOT EVERYTHING WAS TESTED: $${without#export }; tools/testdeps.sh says what is missing here" >&2

.PHONY: torture
torture: ## runs what attacks the built program, in its long forms (more than an hour), and prints a table
	@tools/testdeps.sh
	@failed=0; out=$$(mktemp); trap 'rm -f "$$out"' EXIT; \
	KEYWARD_TORTURE=1 go test -v -count=1 -timeout 60m -run 'TestEveryFault|TestPanicsEndOneRequest|TestHeadAsLLHTTP' ./proxy >"$$out" || { failed=1; cat "$$out"; }; \
	KEYWARD_TORTURE=1 go test -v -count=1 -timeout 150m ./torture || failed=1; \
	grep -e figure: -e '^--- FAIL' "$$out" || true; \
	exit $$failed
	KEYWARD_TORTURE=1 go test -v -count=1 -timeout 60m -run 'RotationSurvivesKills|ReplacedOrDeleted|ImportOfManyOrgs' ./cmd/keyward
	cd examples && KEYWARD_ORACLE_CASES=100000 go test -v -count=1 -timeout 30m -run VendorsSDKs .
	KEYWARD_TORTURE=1 go test -v -count=1 -timeout 90m -run 'Storm|EnsureSurvivesKills' ./assistant ./cmd/keyward

.PHONY: test-short
test-short: ## runs the quick tests: SQLite only, no race detector, no SDKs
	KEYWARD_TEST_NO_POSTGRES=1 go test -short $(TESTFLAGS) ./...

.PHONY: race
race: ## runs the program's tests under the race detector RACECOUNT times
	@tools/testdeps.sh
	CGO_ENABLED=1 go test -race -skip "Allocate|HitRate" -count=$(RACECOUNT) $(TESTFLAGS) ./...

.PHONY: lint
lint: export GOFLAGS := -trimpath $(GOFLAGS)
lint: export CGO_ENABLED := 0
lint: ## checks form and known mistakes: golangci-lint, go.mod, workflows, known vulnerabilities
	@go mod tidy -diff
	@$(TOOL) golangci-lint run ./...
	@cd tools && go build -o ../bin/crossvet ./crossvet
	@GOOS=darwin GOARCH=arm64 bin/crossvet $$(go list -deps ./cmd/keyward | grep '^github.com/keyward/keyward')
	@cd examples && go mod tidy -diff && $(TOOL) golangci-lint run ./...
	@cd deploy/check && go mod tidy -diff && $(TOOL) golangci-lint run ./...
	@cd console/e2e && go mod tidy -diff && $(TOOL) golangci-lint run ./...
	@cd deploy/test && go mod tidy -diff && $(TOOL) golangci-lint run ./...
	@cd tools && $(TOOL) golangci-lint run ./release ./crossvet
	@go tool -modfile=$(CURDIR)/tools/actionlint/go.mod actionlint
	@tools/vulncheck.sh

.PHONY: fmt
fmt: ## formats the Go code
	@git ls-files -co --exclude-standard '*.go' | xargs $(TOOL) gofumpt -l -w

.PHONY: fuzz
fuzz: ## runs every fuzz target for FUZZTIME and prints a table as in docs/fuzzing.md
	@tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## measures what Keyward costs beside nginx, HAProxy and others: table, bench/out/latest.json, latest.html (15 minutes)
	go run ./bench $(ARGS)

.PHONY: bench-quick
bench-quick: ## the same in two minutes, with more noise
	go run ./bench --quick $(ARGS)

.PHONY: bench-compare
bench-compare: ## compares bench/out/latest.json with BASE=FILE, an earlier one; fails on a regression beyond the noise
	@test -n "$(BASE)" || { echo "BASE=FILE is missing: an earlier bench/out/latest.json" >&2; exit 2; }
	@go run ./bench compare "$(BASE)"

.PHONY: soak
soak: ## runs everything at once for an hour, a fault every minute: nothing may fail, be lost or stay behind; ten minutes with SOAK=10m
	go run ./bench soak --time $(SOAK) $(ARGS)

.PHONY: microbench
microbench: ## runs the Go benchmarks of the hot path; BASE=FILE compares with an earlier bench/out/go.txt
	@mkdir -p bench/out
	go test -p 1 -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $(TESTFLAGS) $(HOT) | tee bench/out/go.txt
	@if [ -n "$(BASE)" ]; then $(TOOL) benchstat "$(BASE)" bench/out/go.txt; fi

.PHONY: cover
cover: ## measures which statements the tests reach, by package: cover.out
	@tools/testdeps.sh
	go test -coverpkg=./... -coverprofile=cover.out $(TESTFLAGS) ./...
	@tools/cover.sh

.PHONY: pictures
pictures: ## makes the console's pictures in docs/console anew
	cd console/e2e && go test -count=1 -run EveryPage . -args -update

.PHONY: clean
clean: ## removes what was built and measured
	rm -rf bin dist bench/out cover.out
