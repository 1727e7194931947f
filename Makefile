# Everything that one does here. `make help` lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The first of these that will do; `make setup PYTHON=...` names another.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; \
	done),python3)

.PHONY: help setup run test mutations lint format types imports lock audit peers federated clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: $(VENV)/.package ## make .venv: the hash-pinned requirements.lock, then this package

run: setup ## run the pipeline; e.g. make run ARGS="--epsilon=1"
	$(BIN)/python pipelines/local_run.py $(ARGS)

test: setup ## run the tests; e.g. make test ARGS="-m slow"
	$(BIN)/python -m pytest $(ARGS)

mutations: setup ## plant bugs one at a time, and show which test catches each; see docs/promise.md
	$(BIN)/python -m tests.mutations $(ARGS)

lint: setup ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup ## put format and style right, where a tool can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup ## check the types
	$(BIN)/pyright

imports: setup ## check who imports whom
	$(BIN)/lint-imports

lock: setup ## re-make requirements.lock from setup.py; ARGS=--upgrade takes the newest
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/lock.py $(ARGS)

audit: .venv-audit/.installed ## ask PyPI's database of vulnerabilities about every locked package; see SECURITY.md
	.venv-audit/bin/pip-audit --requirement requirements.lock --disable-pip --strict $(ARGS)

peers: .venv-peers/.installed ## make .venv-peers, in which benchmarks/dp_step.py runs Opacus and JAX

federated: .venv-federated/.flower ## make .venv-federated, in which federations run on Flower; docs/federated.md

clean: ## remove the virtual environments
	rm -rf $(VENV) .venv-oldest .venv-peers .venv-federated .venv-audit

# Each stamp is written last, so that an interrupted set-up is not taken for a finished one.
$(VENV)/.dependencies: requirements.lock scripts/bootstrap.py
	@command -v $(PYTHON) >/dev/null || { echo "There is no Python here: install Python 3.11, 3.12 or 3.13 (package python3)."; exit 1; }
	$(PYTHON) scripts/bootstrap.py $(VENV)

$(VENV)/.package: $(VENV)/.dependencies setup.py
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

.venv-peers/.installed: benchmarks/peers/requirements.txt | setup
	$(BIN)/python -m venv --clear --without-pip .venv-peers
	$(BIN)/python -m pip --python .venv-peers install --quiet --requirement $<
	touch $@

.venv-audit/.installed: | setup
	$(BIN)/python -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	touch $@

# Flower's pins take some packages back that requirements.lock has newer, so that it has an environment of its own.
.venv-federated/.flower: setup.py requirements.lock
	$(MAKE) setup VENV=.venv-federated
	.venv-federated/bin/python -m pip install --quiet --no-build-isolation --config-settings editable_mode=compat --editable '.[federated]'
	touch $@
