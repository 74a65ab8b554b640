# Everything here needs Go and a POSIX machine with bash; a MySQL server is found
# or fetched by scripts/mysqld.sh when one is first needed.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME    ?= 1m
TIMEOUT     ?= 60m
# Tests wait more than they work: three packages at a time, the slowest first.
SLOWEST     := ./recovery ./proxy ./consensus
# -short: fewer rounds of the fault tests; no transactions of hundreds of MB.
UNITFLAGS   ?=
E2EFLAGS    ?=
# What a bench run takes: see `go run ./internal/bench/cmd --help`.
BENCHFLAGS  ?=
# What a failover run takes: see `go run ./internal/failover/cmd --help`.
FAILOVERFLAGS ?=

# What a battery run takes: see `go run ./internal/battery/cmd --help`.
BATTERYFLAGS ?=

export CGO_ENABLED ?= 0
# Where tests write what they leave out.
SKIPS := $(CURDIR)/bin/left-out
export COHORT_TEST_SKIPS = $(SKIPS)

.PHONY: all build demo test lint unit e2e race bench failover battery fuzz mysqld clean

all: build

build: ## bin/cohort
	$(GO) build -trimpath -o bin/cohort ./cmd/cohort

demo: build ## a group of three, a transaction through one, read on all
	./scripts/demo.sh

test: lint build unit e2e ## all tests but fuzzing, races and benchmarks
	@if test -s $(SKIPS); then echo 'Left out on this machine:'; sort -u $(SKIPS); rm $(SKIPS); fi

lint: ## gofmt, go vet (for arm64 as well), staticcheck
	@test -z "$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...))" || { gofmt -l $$($(GO) list -f '{{.Dir}}' ./...); echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

unit: mysqld ## packages' own tests; those about mysqld start real ones
	./scripts/ramtmp.sh $(GO) test -timeout $(TIMEOUT) $(UNITFLAGS) -p 3 $(SLOWEST) $$($(GO) list ./... | grep -v '/internal/e2e$$')

# The program is not a dependency that go test knows of: never from its cache.
e2e: build mysqld ## whole groups, real clients, processes killed
	./scripts/ramtmp.sh $(GO) test -count=1 -timeout $(TIMEOUT) $(E2EFLAGS) ./internal/e2e

race: export CGO_ENABLED = 1
race: mysqld ## unit tests with the race detector (needs a C compiler)
	./scripts/ramtmp.sh $(GO) test -race -timeout $(TIMEOUT) $(UNITFLAGS) $$($(GO) list ./... | grep -v '/internal/e2e$$')

bench: build ## the table of docs/benchmarks: single mysqld, Group Replication, cohort
	$(GO) run ./internal/bench/cmd $(BENCHFLAGS)

failover: build ## how long writes stop when the primary fails or hands over
	$(GO) run ./internal/failover/cmd $(FAILOVERFLAGS)

battery: build mysqld ## faults under load, every answer checked (docs/robustness.md)
	$(GO) run ./internal/battery/cmd $(BATTERYFLAGS)

fuzz: ## every fuzz target for FUZZTIME
	./scripts/fuzz.sh $(FUZZTIME)

mysqld: ## find or fetch a stock mysqld once, before tests need it in parallel
	@./scripts/mysqld.sh >/dev/null
	@# For clock jumps, which are left out where it is not to be had.
	@./scripts/mysqld.sh --with clock >/dev/null 2>&1 || true

clean:
	rm -rf bin
