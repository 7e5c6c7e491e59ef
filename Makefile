# `make help` lists what there is. Lint and tests use one feature set for the whole workspace, so that
# nothing is compiled twice.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
ALL := --workspace --all-features
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help build demo test lint bench soak fuzz

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## everything, for development
	tests/install.sh build
	$(CARGO) build $(ALL) --all-targets

demo: ## a validator signs through hsmd on the mock HSM: needs Rust and a C compiler only
	$(CARGO) build -p hsmd -p hsm-sentry -p hsm-tests --features hsmd/mock --bins
	@$(TARGET)/debug/demo

test: ## installs what the tests need, and runs all of them
	tests/install.sh test
	$(CARGO) build $(ALL) --all-targets
	$(CARGO) test $(ALL)

lint: ## format, clippy, docs, dependencies and licences
	tests/install.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc -q $(ALL) --no-deps
	tests/install.sh lint
	$(CARGO) deny --log-level error check bans licenses sources

bench: ## rates and latencies beside tmkms and the raw limits of this machine
	tests/install.sh bench
	$(CARGO) build --release $(ALL) --bin hsmd --bin hsm-sentry --bin yubihsm-emulator --bench signing
	$(CARGO) bench $(ALL) --bench signing
	$(CARGO) run --release --manifest-path tests/benches/emulator/Cargo.toml --target-dir $(TARGET)/emulator-bench \
		-- $(TARGET)/release/yubihsm-emulator

soak: ## the long forms: networks of 2,000 blocks, 1,000 kills, property tests of 20,000 cases
	tests/install.sh test
	$(CARGO) build $(ALL) --all-targets
	HSMD_SOAK=1 PROPTEST_CASES=20000 $(CARGO) test $(ALL)

fuzz: ## every fuzz target, FUZZ_SECONDS each
	tests/install.sh fuzz
	cd tests/fuzz && for target in $$($(CARGO) fuzz list --fuzz-dir .); do \
		mkdir -p corpus/$$target; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run -s none --fuzz-dir . $$target corpus/$$target \
			$$(ls -d seeds/$$target 2> /dev/null) -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
