# The same commands for people and for CI. On a machine with Python 3.11 and make,
# each target sets up what it needs: a virtual environment in .venv, by uv if it is
# there and by pip if not. No root is needed, except for `make brokers`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
UV := $(shell command -v uv)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) --quiet
BROKERS ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup oracle run test lint format bench screenshots brokers docs clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with flowstream, every extra and the tools

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
ifdef UV
	[ -x $(BIN)/python ] || uv venv --quiet --python $(PYTHON) $(VENV)
else
	@$(PYTHON) -c 'import ensurepip' || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade 'pip>=25.1' # the first to know dependency groups
endif
	$(INSTALL) --editable '.[all]' --group dev
	@touch $(STAMP)

run: setup ## watch real orders flow into a warehouse, on an embedded broker (Ctrl-C drains)
	@$(BIN)/flowstream run pipelines.feed pipelines.orders --http $(ARGS)

test: setup ## all tests; those on RabbitMQ take the brokers that are up (ARGS='-k name')
	$(BIN)/pytest -m "not benchmark" $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## rewrite the sources as ruff wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## measure beside the bare clients
	$(BIN)/python -m tests.benchmarks $(ARGS)

screenshots: setup ## take the pictures of the docs anew (needs chromium and chromium-driver)
	$(BIN)/python -m tests.monitor.screenshots

brokers: ## install and start real brokers, as root (BROKERS='3.10 4.0 4.3 cluster')
	$(PYTHON) tests/brokers/rabbitmq.py up $(BROKERS)

oracle: setup ## build the AMQP 1.0 codec that tests compare with (needs a C compiler)
	$(INSTALL) --group oracle

docs: setup ## build the documentation site
	@test -d docs || { echo "docs/ is not written yet"; exit 1; }

clean: ## remove .venv, caches and build products (brokers stay)
	rm -rf $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
