# Kerbside: two commands. `make run` shows it, `make test` proves it. `make help` lists the rest.
# Needs git, make and Rust >= 1.92; system packages are installed by tests/deps.sh, which lists them first.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test build console browser lint bench clean deps-build deps-run deps-test deps-bench rust

CONSOLE := gateway/console
# A Node of our own, if the system's is too old (tests/deps.sh puts it there).
export PATH := $(CURDIR)/$(CONSOLE)/.node/node_modules/.bin:$(PATH)
export CARGO_TERM_PROGRESS_WHEN ?= auto

help:
	@echo "make run      build and start the demonstration: gateway, 46 devices with live video, a command platform"
	@echo "make test     set up what the tests need and run them all (this is what CI runs)"
	@echo "make build    release build with the console inside: target/release/kerbside"
	@echo "make console  build the console alone: $(CONSOLE)/dist"
	@echo "make lint     formatting, clippy, console types"
	@echo "make bench    build and run the benchmarks (see bench/)"
	@echo "make clean    remove everything that was built"

# PR_SET_PDEATHSIG: if make itself is killed, the demonstration still stops in order.
run: deps-run build
	@exec setpriv --pdeathsig TERM -- target/release/kerbside-sim demo --kerbside target/release/kerbside --config configs/demo $(DEMO)

build: deps-build console
	@echo "== building (release; some minutes the first time)"
	cargo build --release --locked -p kerbside -p kerbside-sim

# The dev profile only: the end-to-end scenarios use the binaries that the unit tests were built with.
test: deps-test console browser
	@echo "== console: types and unit tests"
	npm --prefix $(CONSOLE) run --silent check
	npm --prefix $(CONSOLE) test --silent
	@echo "== formatting"
	cargo fmt --all --check
	@echo "== clippy"
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@echo "== programs"
	cargo build --locked -p kerbside -p kerbside-sim
	@echo "== tests"
	KERBSIDE_E2E=required cargo test --locked --workspace --no-fail-fast
	@echo "== configuration and units"
	target/debug/kerbside check --config configs
	target/debug/kerbside check --config configs/demo
	sh systemd/check.sh target/debug/kerbside

console: deps-build $(CONSOLE)/dist/index.html

CONSOLE_SOURCES := $(shell find $(CONSOLE)/src $(CONSOLE)/public $(CONSOLE)/index.html $(CONSOLE)/vite.config.ts $(CONSOLE)/tsconfig.json -type f 2>/dev/null)

# Not `npm ci`: it insists on packages for other systems, which a mirror need not have. The lock file still decides.
$(CONSOLE)/node_modules/.package-lock.json: $(CONSOLE)/package.json $(CONSOLE)/package-lock.json
	@echo "== console: packages"
	npm install --no-save --prefix $(CONSOLE) --no-audit --no-fund --loglevel=error
	@touch $@

$(CONSOLE)/dist/index.html: $(CONSOLE)/node_modules/.package-lock.json $(CONSOLE_SOURCES)
	@echo "== console: build"
	npm --prefix $(CONSOLE) run --silent build -- --logLevel warn
	@touch $@

# What drives Chromium in the end-to-end scenarios (the browser itself is a system package).
browser: tests/browser/node_modules/.package-lock.json

tests/browser/node_modules/.package-lock.json: tests/browser/package.json tests/browser/package-lock.json
	@echo "== browser test: packages"
	npm install --prefix tests/browser --no-audit --no-fund --loglevel=error --no-save
	@touch $@

lint: deps-build console
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	npm --prefix $(CONSOLE) run --silent check

bench: deps-bench build
	cargo run --release --locked -p kerbside-bench -- $(BENCH)

clean:
	cargo clean
	rm -rf $(CONSOLE)/dist $(CONSOLE)/node_modules $(CONSOLE)/.node tests/browser/node_modules

deps-build: rust
	@sh tests/deps.sh build

deps-run: rust
	@sh tests/deps.sh build run

deps-test: rust
	@sh tests/deps.sh build run test

deps-bench: rust
	@sh tests/deps.sh build run test bench

rust:
	@sh tests/deps.sh rust
