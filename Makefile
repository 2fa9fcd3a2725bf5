# `make demo` and `make test` do everything; the other targets are their parts.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# the certificates of the system, where a company has its own
export UV_SYSTEM_CERTS ?= true

VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv || echo .cache/uv/bin/uv)
PYTHON ?= python3
STAMP := $(VENV)/.installed
SERVER := serving/target/release/ocad-server
SERVER_SOURCES := $(shell find serving/src serving/proto serving/build.rs serving/Cargo.toml serving/Cargo.lock -type f)
CPU_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# forecasters behind a detector see no incident, and no row that it is measured on
FIRST_PARTS := --set windows.train=0.4 --set windows.validation=0.2 --set windows.incidents=false

.PHONY: help tools setup demo demo-detection test test-slow check fix bench bench-detection bench-serving serve clean lock

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP) $(SERVER): | tools

tools:
	@scripts/system_tools.sh

setup: $(STAMP) $(SERVER) ## Make the environment in .venv and build the server

$(STAMP): requirements.lock requirements.uv.lock pyproject.toml registry/pyproject.toml
	@if ! command -v $(UV) >/dev/null; then $(PYTHON) -m venv .cache/uv && \
	  .cache/uv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.uv.lock; fi
	$(UV) venv --quiet --allow-existing --python 3.11 $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e registry -e .
	@touch $@

$(SERVER): $(SERVER_SOURCES)
	cd serving && cargo build --release --locked --quiet
	@touch $@

lock: ## Pin the newest versions of the dependencies in requirements.lock
	$(UV) pip compile pyproject.toml registry/pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-package ocad-registry --no-header --no-annotate --quiet --output-file requirements.lock
	echo uv | $(UV) pip compile - --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet \
	  --output-file requirements.uv.lock

demo: setup ## Train, verify, register, promote and ask a forecaster of round-trip times
	$(CPU_THREADS) $(BIN)/ocad train --plugin tcn --metric udp_echo --promote production
	$(BIN)/ocad verify tcn-udp_echo@production
	$(BIN)/ocad registry list tcn-udp_echo
	$(BIN)/ocad predict tcn-udp_echo@production --data udp_echo
	$(BIN)/python scripts/ask_server.py

demo-detection: setup ## Train five detectors of incidents, optimise the composite, detect, alert a webhook, write a report
	$(CPU_THREADS) $(BIN)/ocad train --plugin rule_based --metric oran
	$(CPU_THREADS) $(BIN)/ocad train --plugin changepoint --metric oran
	$(CPU_THREADS) $(BIN)/ocad train --plugin isolation_forest --metric oran
	$(CPU_THREADS) $(BIN)/ocad train --plugin tcn --metric ecpri --metric lbm $(FIRST_PARTS)
	$(CPU_THREADS) $(BIN)/ocad train --plugin tcn --metric udp_echo --data oran_testbed --name tcn-udp_echo-oran $(FIRST_PARTS)
	$(CPU_THREADS) $(BIN)/ocad train --plugin residual --metric oran
	$(CPU_THREADS) $(BIN)/ocad train --plugin composite --metric oran --promote production
	$(BIN)/ocad registry show composite-oran@production
	$(CPU_THREADS) $(BIN)/python scripts/detect_and_alert.py

test: check ## Lint, types, contracts and every fast test
	$(CPU_THREADS) $(BIN)/pytest -m "not slow" -n 2 --dist loadfile
	cd serving && cargo test --locked --quiet

test-slow: setup ## The tests that take minutes
	$(CPU_THREADS) $(BIN)/pytest -m slow

check: setup ## Format, lint, types, import contracts, sizes, the reference of the commands
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	@mkdir -p .cache
	$(BIN)/lint-imports --no-cache >.cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }
	$(BIN)/python scripts/check_sizes.py
	@$(BIN)/python -m ocad.cli.reference | diff docs/cli.md - || \
	  { echo "docs/cli.md differs: run python -m ocad.cli.reference > docs/cli.md" >&2; exit 1; }
	cd serving && cargo fmt --check && cargo clippy --locked --quiet --all-targets -- -D warnings

fix: setup ## Format and repair what lint can
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .
	cd serving && cargo fmt

bench: setup ## Measure everything and write docs/benchmarks.md
	@for script in startup registry registry_many registry_objects registry_server training_loop tcn_training tcn_quality tcn_inference \
	  ctr_quality ctr_training ctr_inference ctr_calibration ctr_memory detection_speed; do \
	  echo "== $$script" >&2; $(CPU_THREADS) $(BIN)/python scripts/bench/$$script.py; done

bench-detection: setup ## Score the detectors by their protocols and write docs/results/detection.md
	@for script in skab nab smd changepoints injected testbed backgrounds natural export false_alarms; do \
	  echo "== $$script" >&2; $(CPU_THREADS) $(BIN)/python scripts/bench/detection_$$script.py; done

bench-serving: setup ## Measure the server beside its peers, about 12 minutes
	$(BIN)/python scripts/bench/serving

serve: setup ## Serve the registry in ./models
	$(BIN)/ocad serve

clean: ## Remove what was built; the registry, runs and data stay
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis serving/target
