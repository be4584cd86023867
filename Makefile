# The way in: `make run`, `make test`, `make build`. CARGO_TARGET_DIR is respected everywhere.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The steps share one target folder and two cores: one after the other.
.NOTPARALLEL:

CARGO ?= cargo
# What `make run` shares.
DIR ?= ./demo-folder
HOME_DIR ?= ./demo-home
# Records of the large part of `make page`.
LARGE ?= 0
# Empty: a requirement without a proof fails `make test`. `--warn-only`: it is only named.
SPEC_CHECK ?=
# Profile of .config/nextest.toml.
PROFILE ?= default
# What whole-node tests need is built into everything that is tested, so that each crate is built once.
FEATURES := --features sealtide-node/failpoints

.PHONY: help setup pages build run test test-long bench page fmt check-format tidy clippy doc spec deny unit web

help: ## list these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

setup: ## install what is missing on a Debian machine
	@.ci/setup

pages: ## build the pages of the dashboard, when they are not up to date
	@.ci/web build

build: pages ## build the sealtide binary that people use: target/release/sealtide
	$(CARGO) build --release --package sealtide-node --bin sealtide

run: pages ## share a folder: make run DIR=~/Notes (without DIR a demo folder)
	@if [[ "$(DIR)" == ./demo-folder && ! -e "$(DIR)" ]]; then \
		mkdir -p "$(DIR)"; \
		echo "Edit me on one machine, and read me on the other." > "$(DIR)/hello.txt"; \
	fi
	$(CARGO) run --package sealtide-node --bin sealtide -- --home "$(HOME_DIR)" up "$(DIR)"

test: setup check-format tidy clippy doc spec deny unit web ## everything that CI runs

test-long: ## the same with ten times the cases
	SEALTIDE_TEST_SCALE=10 $(MAKE) test PROFILE=long

bench: build ## the parts, then side by side with rsync, git and Syncthing (SCALE=small for a quick look)
	$(CARGO) bench --package sealtide-bench --profile dev
	bench/sync.sh

page: build ## measure and write bench/RESULTS.md (LARGE=10000000 for ten million records too)
	bench/page.py --large $(LARGE)

fmt: ## format everything
	$(CARGO) fmt --all

check-format:
	$(CARGO) fmt --all -- --check

tidy:
	$(CARGO) xtask tidy

# Warnings are denied by flags for the last step only: RUSTFLAGS would build every dependency again.
clippy:
	$(CARGO) clippy --workspace --all-targets $(FEATURES) -- -D warnings

# --examples (there are none) makes cargo see the dependencies as clippy saw them, so nothing is checked twice.
doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --lib --bins --examples $(FEATURES)

spec:
	$(CARGO) xtask spec --check spec/requirements.txt $(SPEC_CHECK)

deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --all-features check; \
	else \
		echo "deny: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)"; \
	fi

# Tells at the end how many tests passed and which were slowest.
unit:
	PROFILE=$(PROFILE) .ci/unit $(FEATURES)

# After `unit`, which builds the binary that it is tried against.
web: ## verifier and dashboard in TypeScript: types, size, tests against the binary of the last build, in Chromium
	@.ci/web
