# `make demo` and `make test` each work on a fresh Debian machine with Rust and Python: each installs whatever
# else it needs.

# How long the demo (default: until Ctrl-C), the chaos (default: 5 minutes) or each fuzz target (default: a
# minute) runs, such as "20s".
DURATION ?=
# Frames per second that the demo publishes.
RATE ?= 2000
# The seed of the faults of `make chaos` and the messages of `make fuzz-wire`; by default a random one, which
# is printed.
SEED ?=
# The only round that `make fuzz-wire` runs; by default all, from the first on.
ROUND ?=
# What `make chaos` draws from, comma-separated: daemons, postgres, nats, poison, durable, table, unreadable,
# huge, limits; by default everything.
KINDS ?=
# The size of the messages of `make giants`, and max_buffered_bytes, in MiB.
MIB ?=
BUFFERED ?=
# More arguments for the demo or the benches.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test browser chaos chaos-team alerts alerts-calm docs fuzz fuzz-wire giants bench bench-growth bench-store instructions lint package package-test

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

setup: ## Installs nats-server, PostgreSQL and Prometheus if they are missing
	@scripts/setup.sh

demo: setup ## Runs everything on a testbed and prints the throughput (DURATION=20s RATE=2000)
	@cargo run --quiet -- demo --rate $(RATE) $(if $(DURATION),--duration $(DURATION)) $(ARGS)

test: setup ## Runs all tests on testbeds: plain PostgreSQL, and TimescaleDB if available
	@scripts/test.sh

browser: setup ## Tests the status page in a real Chromium; screenshots in target/page
	@scripts/setup.sh browser
	cargo test --features kill-points --test it -- --ignored --test-threads 2 browser::

chaos: setup ## Breaks everything at random while messages flow, and asks the oracle (SEED=1 DURATION=5m)
	SEED=$(SEED) DURATION=$(DURATION) KINDS=$(KINDS) cargo test --features kill-points --test it -- --ignored --exact --nocapture chaos::random_faults_cost_no_message_and_double_none

chaos-team: setup ## The same for three daemons that share eight shards, behind a pooler (SEED=1 DURATION=5m)
	SEED=$(SEED) DURATION=$(DURATION) cargo test --features kill-points --test it -- --ignored --exact --nocapture chaos::team::random_faults_of_a_team_cost_no_message_and_double_none

alerts: setup ## Causes the fault of each alert, under a real Prometheus; six minutes
	cargo test --features kill-points --test it -- --ignored --exact --nocapture monitoring::faults::every_alert_fires_when_its_fault_is_made_and_clears_afterwards

alerts-calm: setup ## Runs the shipped rules over ten minutes of normal operation; no alert may fire
	cargo test --features kill-points --test it -- --ignored --exact --nocapture monitoring::ordinary::ten_minutes_of_ordinary_life_raise_no_alert

docs: ## Writes docs/metrics.md, docs/settings.md and docs/schema.sql from the code
	JETCOPY_WRITE_DOCS=1 cargo test --features kill-points --lib -- config::tests::reference
	JETCOPY_WRITE_DOCS=1 cargo test --features kill-points --test it -- --exact monitoring::documents::the_reference_of_metrics_is_what_the_code_says schema::the_schema_to_be_read_is_what_the_migrations_make

fuzz: ## Fuzzes the decoder of each format under arbitrary mappings, DURATION each (90s, 5m)
	@scripts/fuzz.sh $(or $(DURATION),1m)

fuzz-wire: setup ## Sends random bytes over the wire into the real daemon and asks the oracle (SEED=1 DURATION=30m ROUND=7)
	SEED=$(SEED) DURATION=$(DURATION) ROUND=$(ROUND) cargo test --features kill-points --test it -- --ignored --exact --nocapture wire::whatever_comes_over_the_wire_for_long_is_a_row_or_a_dead_letter_and_nothing_stops

giants: setup ## Sends giants of every kind and checks the daemon's memory (MIB=8 BUFFERED=64 KINDS=headers)
	MIB=$(MIB) BUFFERED=$(BUFFERED) KINDS=$(KINDS) cargo test --features kill-points --test it -- --ignored --exact --nocapture giants::giants_of_every_kind_take_no_more_memory_than_may_be_taken

bench: setup ## Measures jetcopy, the server's own COPY, JetStream and a Python consumer; writes target/bench.json
	@scripts/setup.sh bench
	cargo bench --bench decode
	cargo bench --bench drain -- $(ARGS)

bench-growth: setup ## Measures what a row costs as tables, messages and pipelines grow; writes target/bench-growth.json
	cargo bench --bench growth -- $(ARGS)

bench-store: setup ## Measures the store at ten million frames; writes target/bench-store.json (ARGS="--frames 1000000 --plain")
	cargo bench --bench store -- $(ARGS)

instructions: ## Counts the instructions a message costs; fails if they grew by 5 % (ARGS=--record accepts them as they are)
	@scripts/setup.sh instructions
	@# The tests' dependencies, and only jetcopy itself as in a release: a release takes twice as long to build.
	cargo bench --quiet --profile dev --config profile.dev.package.jetcopy.opt-level=3 --bench instructions -- $(ARGS)

package: ## Builds the Debian package into target/debian (PROFILE=dev: quickly, for a test)
	@scripts/package.sh

package-test: ## Installs the package in a fresh Debian, removes and purges it; needs root and debootstrap
	@scripts/check_package.sh

lint: ## Checks format, lints, documentation and licences
	@scripts/setup.sh lint
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	@# A release has no features; with a test, the dependencies are the same and need no second look.
	cargo clippy --lib --bins --test tidy -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	PATH="$(CURDIR)/.tools/bin:$$PATH" cargo deny check licenses bans sources
	@# The tests' own build, so that nothing is built twice.
	cargo test --quiet --features kill-points --no-run
	python3 scripts/check_deployment.py target/debug/jetcopy
