# The one door: what a person does here, and what CI does, are targets of this file. `make` lists them.
# Variables are given after the target: make up NGINX_PORT=18080

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# Rust installed for one user and nginx of a distribution are often not on the path of a bare shell.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

# What may be given: what targets here take, the local cluster, k6 (loadtest/README.md), and what of the rest has a name of
# its own. Whatever else begins so is read by some program.
variables := ARGS TIME PROFILE OLD VALKEY BASE_URL SCRIPT K6
variables += STREAMS TOPICS RATE RAMP HOLD LEAVE_AFTER AWAY BATCH METRICS GROWTH_PERCENT_MAX GRACE PADDING EVENTS STREAM_TIMEOUT \
	TTFB_P95_MS LATENCY_P99_MS PUBLISH_P95_MS RESUME PUBLISH_KEY LOG_EVENTS_MAX SSE TESTID
variables += TIDEGATE_TEST_REDIS TIDEGATE_TEST_SEED TIDEGATE_TEST_SEEDS TIDEGATE_NEED_CHROMIUM CARGO_TARGET_DIR
prefixes := CARGO_ RUST K6_

.PHONY: help
help: ## lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "    %-16s %s\n", $$1, $$2 }' deploy/local/cluster.mk $(filter-out %/cluster.mk,$(MAKEFILE_LIST))

# --- the local cluster ------------------------------------------------------------------------------------------------

include deploy/local/cluster.mk

# --- building ---------------------------------------------------------------------------------------------------------

# What is built, and so how: `release`, or `checks`, which `make test` builds once, tests and all (Cargo.toml).
PROFILE := release
ifeq ($(PROFILE),release)
build_all = cargo build --release --locked
swarm = cargo run --release --locked -p swarm --bin $1 --
else
# Always the whole workspace: chosen alone, a package has other features of its dependencies, and all is compiled again.
build_all = cargo build --profile $(PROFILE) --locked --workspace --all-targets
swarm = $(build_all) && $(dir $(built))$1
endif

# TIDEGATE_BIN names a program that is there already, and spares the build.
.PHONY: build binary
# A make below this one is told the path that is built here, and builds it, too, if it must.
built := $(abspath $(or $(CARGO_TARGET_DIR),target)/$(PROFILE)/tidegate)
ifneq ($(filter-out $(built),$(TIDEGATE_BIN)),)
binary:
else
export TIDEGATE_BIN := $(built)
binary: $(TIDEGATE_BIN)
endif

build: ## builds the release binary
	cargo build --release --locked

$(built): Cargo.toml Cargo.lock $(shell find src -type f)
	$(build_all)
	@touch $@  # cargo leaves it alone when nothing changed, and it would seem old for ever

# --- checks -----------------------------------------------------------------------------------------------------------

.PHONY: old-rules test-old-rule mutants model fuzz test quick ci test-tools fmt fmt-check lint doc test-rust test-valkey test-config test-api test-dashboards test-load test-clients test-clients-lib test-fault test-abuse deny
checks = test-tools fmt-check lint doc test-rust test-old-rule test-config test-api test-dashboards test-load test-clients test-clients-lib test-fault test-abuse

test: ## all checks: the one command that tells whether a change is good
	@told=; trap 'printf "%s" "$$told"' EXIT; \
	for check in $(checks); do \
		began=$$SECONDS took=failed; \
		! TIDEGATE_BIN='$(filter-out $(built),$(TIDEGATE_BIN))' $(MAKE) --no-print-directory $$check PROFILE=checks || took=$$(date --utc --date=@$$((SECONDS - began)) +%M:%S); \
		told+=$$(printf '    %-16s %s' $$check $$took)$$'\n'; \
		[[ $$took != failed ]] || exit 1; \
	done; \
	told+="test: all of it passed in $$(date --utc --date=@$$SECONDS +%M:%S)"$$'\n'

# Clippy over all targets would compile every test twice; that is left to `make test`.
quick_tests = wire publish ended config connections retention
quick: fmt-check ## what takes less than a minute while working: format, clippy on the program, unit tests, short simulations, quick tests
	cargo clippy --locked --workspace -- -D warnings
	TIDEGATE_TEST_SEEDS=10 cargo test --locked --workspace --lib --test tidy --test simulation --test simulation_ingest
	cargo test --locked --workspace --test it -- $(addsuffix ::,$(quick_tests))

old-rules: ## puts rules back that lost events, one at a time, and sees that the simulation finds each; ARGS name some
	tests/simulation/old_rules/run $(ARGS)

test-old-rule: # One of them, another for each commit.
	tests/simulation/old_rules/run --one

mutants: ## changes the core at random, one small thing at a time, and sees whether a test notices; ARGS go to tests/mutants/run
	tests/mutants/run $(ARGS)

# As one package, because `cargo rustc`, which compiles what is broken, knows no workspace.
model: ## plays wake-ups and cursors in more orders than `make test` does, then breaks their rules one at a time; ARGS name some
	cargo test --locked --package tidegate --test model -- --more 1
	tests/model/broken/run $(ARGS)

fuzz: ## reads any bytes as what comes from others: TIME= seconds (600) for each of fuzz/targets; ARGS name some; wants cargo-fuzz
	fuzz/run $(ARGS)

ci: ## what the build machine runs
	@.ci/run

test-tools: # What the tests run besides Rust; installs what is missing.
	@deploy/install.sh cc curl redis-server redis-cli nginx prometheus promtool prometheus-blackbox-exporter mtail python3 python3-venv
	@deploy/install.sh chromium || [[ -z "$${TIDEGATE_NEED_CHROMIUM:-}" ]] || exit 1

fmt: ## formats the code
	cargo fmt --all

# A minimal toolchain has no rustfmt and no clippy. They are fetched; where that is impossible the check is left out,
# and says so, rather than keep all others from running.
with_component = if cargo $1 --version >/dev/null 2>&1 || rustup component add $2; then set -x; $3; \
	else echo "NOT CHECKED: $2 is missing here, and could not be fetched" >&2; fi

fmt-check: # Is the code formatted?
	@$(call with_component,fmt,rustfmt,cargo fmt --all --check)

lint: ## clippy, warnings are errors
	@$(call with_component,clippy,clippy,cargo clippy --profile checks --locked --workspace --all-targets -- -D warnings)

doc: ## builds the documentation, private items too, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --profile checks --locked --workspace --no-deps --document-private-items

# Most tests wait for servers most of the time, so more of them run at once than there are cores.
test_rust = RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --profile checks --locked --workspace

test-rust: ## the tests of the code, and those of streams once more with every stream as an ordinary body
	$(test_rust)
	TIDEGATE__ENGINE__SOCKETS=false $(test_rust) --test it -- $(addsuffix ::,wire subscribe ended hand_over fanout sockets)

# The others start a redis-server of their own or none, and the wheel's Valkey is built without TLS.
not_for_valkey = local nginx readme redis_tls

test-valkey: ## the tests of the code over Valkey in place of Redis; VALKEY=/path/to/valkey-server names another one
	@server=$${VALKEY:-$$(deploy/local/valkey)}; $$server --version; set -x; \
	TIDEGATE_TEST_REDIS=$$server cargo test --locked --workspace --no-fail-fast --test ledger --test simulation_ingest; \
	TIDEGATE_TEST_REDIS=$$server cargo test --locked --workspace --test it -- $(patsubst %,--skip %::,$(not_for_valkey))

test-config: ## do nginx and Prometheus take the shipped configuration, and do alerts fire when they should?
	deploy/local/cluster check
	TLS=1 deploy/local/cluster check
	promtool test rules deploy/prometheus/tests/*.yml

test-api: binary ## are answers as docs/openapi.json says? schemathesis asks a gateway of its own; ARGS: requests for each operation
	tests/api/run $(TIDEGATE_BIN) $(ARGS)

test-dashboards: binary ## does every panel show something? Asked of a Prometheus that scrapes a cluster under load
	deploy/local/cluster run -- grafana/test.py

test-load: binary ## short k6 runs through a cluster of its own, on free ports, and what of them the dashboard shows
	deploy/local/cluster run -- loadtest/k6/check

test-clients: binary ## client libraries of npm, PyPI and Go lose nothing while replicas and nginx are killed; without a registry it says so
	deploy/local/cluster run -- loadtest/clients/run --short

test-clients-lib: binary ## our own clients for JavaScript and Python: packed, installed from their packs, and tested over a cluster of their own
	@deploy/install.sh node npm python3-venv
	TIDEGATE__STREAM__RETRY=200ms TIDEGATE__STREAM__HEARTBEAT=500ms deploy/local/cluster run -- clients/check

test-fault: ## a short run of the fault runner
	$(MAKE) --no-print-directory fault ARGS="--short"

test-abuse: ## clients of all bad sorts, a second each, beside good ones that must lose nothing
	$(MAKE) --no-print-directory abuse ARGS="--short"

include deploy/deploy.mk

# --- load and faults --------------------------------------------------------------------------------------------------

.PHONY: load clients fault test-upgrade abuse bench rolling-deploy rebalance
load: ## a k6 run through the running cluster: SCRIPT=subscribe.js (publish, reconnect, soak), K6=/path/to/k6; ARGS go to k6
	BASE_URL=$${BASE_URL:-http://127.0.0.1:$${NGINX_PORT:-8080}} loadtest/k6/run.sh $(ARGS)

clients: binary ## runs client libraries through a cluster that is being broken, and writes the table of docs/clients.md
	deploy/local/cluster run -- loadtest/clients/run $(ARGS)

fault: binary ## kills, pauses and cuts parts while subscribers watch for loss; ARGS go to the fault runner
	$(call swarm,fault) $(ARGS)

test-upgrade: binary ## a rolling upgrade from an older build and the rollback, over one Redis and under load: OLD=/path/to/tidegate
	@[[ -x "$(OLD)" ]] || { echo "test-upgrade: OLD=/path/to/an/older/tidegate names the build that is replaced" >&2; exit 64; }
	$(call swarm,fault) --scenario two-builds --old-binary "$(OLD)" $(ARGS)

abuse: binary ## has clients misbehave, one sort at a time, beside good ones that must not notice; ARGS go to the runner
	$(call swarm,abuse) $(ARGS)

rolling-deploy: ## replaces all replicas one by one, and reloads nginx, under EventSource clients in Chromium; `make test` has a short form
	@deploy/install.sh redis-server nginx chromium
	TIDEGATE_ROLLING_PAGES=20 TIDEGATE_ROLLING_DRAIN=10s cargo test --locked --workspace --test rolling_deploy -- --nocapture

rebalance: binary ## measures how streams even out after a new replica has joined; ARGS go to loadtest/rebalance
	loadtest/rebalance $(ARGS)

bench: binary ## measures the gateway against a bare loop of write(2); ARGS go to the benchmark
	$(call swarm,bench) $(ARGS)

include deploy/words.mk
