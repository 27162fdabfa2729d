# Everything a newcomer needs is `make demo` and `make test`; `make help` tells the rest.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
BIN     := $(CURDIR)/bin
TOOLS   := $(BIN)/tools
PREFIX  ?= /usr/local
LDFLAGS := -s -w -X github.com/mezzo-os/mezzo/sdk/plugin.buildVersion=$(VERSION) -X github.com/mezzo-os/mezzo/core/command.buildVersion=$(VERSION)
GOBUILD := umask 022 && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
PLUGINS := allocator-drf allocator-priority isolator-cgroups isolator-containerd framework-mesos
STATICCHECK_VERSION := v0.8.2
FUZZTIME ?= 20s
SEEDS ?= 300

.PHONY: help
help: ## What each target does
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## bin/mezzo and bin/plugins/mezzo-*
	@mkdir -p $(BIN)/plugins && chmod go-w $(BIN) $(BIN)/plugins # the host refuses binaries that others may write
	$(GOBUILD) -o $(BIN)/mezzo .
	@for p in $(PLUGINS); do echo "go build plugins/$$p"; $(GOBUILD) -o $(BIN)/plugins/mezzo-$$p ./plugins/$$p; done
	$(GOBUILD) -o $(BIN)/plugins/mezzo-shim ./plugins/isolator-cgroups/shim
	$(GOBUILD) -o $(BIN)/plugins/mezzo-init ./plugins/isolator-containerd/init

.PHONY: demo
demo: build ## Starts a small cluster and shows dominant resource fairness at work, in under a minute
	@mkdir -p $(BIN)
	go build -o $(BIN)/mezzo-demo ./test/demo
	$(BIN)/mezzo-demo --mezzo $(BIN)/mezzo

.PHONY: test
test: deps build ## All tests, with the race detector, and cgroup v2 in a virtual machine
	go test -race -timeout 20m ./...
	$(MAKE) --no-print-directory test-cgroup2

.PHONY: test-cgroup2
test-cgroup2: ## Both isolators on a cgroup v2 kernel, in QEMU
	plugins/internal/cgroup2/run.sh

.PHONY: sim
sim: ## The cluster simulator over many seeds (SEEDS=300)
	go test -count=1 -timeout 24h -run 'TestSeeds$$' ./core/sim -args -seeds=$(SEEDS)

.PHONY: sim-scale
sim-scale: ## The cluster simulator with 50,000 agents and 1,000 frameworks, through faults
	go test -count=1 -timeout 2h -run TestScale -v ./core/sim -args -scale-agents=50000 -scale-frameworks=1000

.PHONY: swap-torture
swap-torture: ## Two hundred live swaps of the allocator under a thousand running tasks
	go test -count=1 -timeout 15m -run TestLiveSwap -v ./test -args -swap-tasks=1000 -swap-rounds=100

.PHONY: torture
torture: ## Two hundred tasks of every kind, groups, executors and volumes while agent, isolator and adapter are killed a hundred times; then in images, and containerd killed too
	go test -count=1 -timeout 15m -run TestAgentTorture -v ./test -args -torture-tasks=200 -torture-kills=100
	go test -count=1 -timeout 15m -run TestContainerdTorture -v ./test -args -torture-image-tasks=200 -torture-image-kills=60

.PHONY: soak
soak: ## A thousand short tasks in images, every fifth on the bridge; nothing may be left of them
	go test -count=1 -timeout 30m -run TestContainerdSoak -v ./test -args -soak-tasks=1000

.PHONY: ha-torture
ha-torture: ## Forty faults by chance, of masters, ZooKeeper, agents and the network between, with twenty agents and tasks that must not notice
	go test -count=1 -timeout 40m -run TestHighAvailability -v ./test -args -ha-agents=20 -ha-faults=40

.PHONY: newcomer
newcomer: ## README and tutorial, followed to the letter in a clean Debian tree
	test/newcomer

.PHONY: lint
lint: $(TOOLS)/staticcheck ## Format, vet, static analysis, and whether generated code is fresh
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w): $$unformatted"; exit 1; fi
	go vet ./...
	$(TOOLS)/staticcheck ./...
	$(MAKE) --no-print-directory generate-check

$(TOOLS)/staticcheck:
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

.PHONY: generate
generate: ## Generated code, from the .proto files, and the tables of docs/configuration.md; needs no network and no protoc
	go run ./internal/protogen -root sdk/proto
	go test -count=1 ./config -run TestManualTables -update
	go test -count=1 ./test -run TestManualPluginTables -update

RECORDED = ./core/agent ./core/agent/state ./core/master/state ./core/registry/bolt ./core/registry/zookeeper ./plugins/internal/holder ./plugins/internal/record ./plugins/isolator-containerd/network

.PHONY: record
record: ## Before a release: adds what this version writes on disks to what later ones have to read; VERSION=1.2.3. What is there stays
	@test -n "$(VERSION)" || { echo "make record VERSION=1.2.3"; exit 2; }
	go test -count=1 $(RECORDED) -run '^TestRecorded$$' -args -update-recorded $(VERSION)

.PHONY: generate-check
generate-check: ## Fails when generated code is stale
	go run ./internal/protogen -root sdk/proto -check

.PHONY: bench
bench: build ## The figures of docs/performance.md, as tables; BENCH holds flags, such as BENCH="-only engine"
	go run ./test/bench $(BENCH)

.PHONY: bench-containers
bench-containers: ## Launches by containerd, by cgroups and by `ctr run`, in turns; and 500 containers on one agent
	go test -count=1 -timeout 30m -run TestContainerdFigures ./test -v -args -bench-launches=50 -bench-together=500

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (20s) each
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do \
	  grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | sed 's/func //' | while read -r target; do \
	    echo "$$dir $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$dir; done; done

.PHONY: deps
deps: ## Installs what the tests need and Go does not bring (Debian packages)
	@.ci/deps

.PHONY: install
install: build ## Installs into PREFIX (/usr/local): bin/mezzo, lib/mezzo/plugins and share/man/man1
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/mezzo/plugins
	@$(BIN)/mezzo man $(DESTDIR)$(PREFIX)/share/man/man1 >/dev/null
	@place() { install -m 0755 "$$1" "$$2.new" && sync "$$2.new" && mv -f "$$2.new" "$$2"; }; \
	place $(BIN)/mezzo $(DESTDIR)$(PREFIX)/lib/mezzo/mezzo; \
	ln -sfn ../lib/mezzo/mezzo $(DESTDIR)$(PREFIX)/bin/mezzo; \
	for f in $(BIN)/plugins/mezzo-*; do place $$f $(DESTDIR)$(PREFIX)/lib/mezzo/plugins/$$(basename $$f); done

.PHONY: deb
deb: build ## A Debian package, in dist/
	packaging/build-deb $(VERSION) $(BIN) dist

.PHONY: clean
clean: ## Removes what was built
	rm -rf $(BIN)
