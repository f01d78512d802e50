# The same commands for people and for CI. On a machine with Python 3.11 and make,
# each target sets up what it needs: a virtual environment in .venv, filled by uv, which
# pip fetches where it is not there. No root is needed, except for `make brokers`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed: flowstream, what tests without a broker need, everything.
RUNTIME := $(VENV)/runtime
TESTING := $(VENV)/testing
STAMP := $(VENV)/installed
# uv takes a third of pip's time. Where it has no wheel, or does not reach an index that only pip
# is configured for, pip does the work; its versions below 25.1 do not know dependency groups.
UV := $(shell command -v uv)
pip = { $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
  $(BIN)/python -m pip install --quiet $(1); }
install = { uv=$(or $(UV),$(BIN)/uv); [ -x "$$uv" ] && \
  "$$uv" pip install --python $(BIN)/python --quiet $(1); } || \
  $(call pip,$(2) $(1))
# Debian keeps this part of Python apart: root gets it, others are told what it is.
VENV_MODULE = { [ "$$(id -u)" = 0 ] && echo "installing Debian's python3-venv" && \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
  --no-install-recommends python3-venv >/dev/null; } || \
  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
BROKERS ?=
ARGS ?=
# Tests run in two processes per core, since they wait half of the time, those on real brokers most
# of it. In the fast ring none waits. ARGS=-n0 runs all in one, for a debugger.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell expr 2 '*' $(CORES))
test-fast: WORKERS := $(CORES)
PYTEST = $(BIN)/pytest -n $(WORKERS) -m "not benchmark and not cluster"

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without it each process of the tests would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup oracle run test test-fast test-all lint format dashboards bench drawings screenshots brokers docs dist clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with flowstream, every extra and the tools

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv: once, less than a minute"
ifdef UV
	@uv venv --quiet --python $(PYTHON) $(VENV)
else
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(VENV_MODULE)
	@$(PYTHON) -m venv $(VENV)
	@-$(BIN)/python -m pip install --quiet --only-binary :all: uv
endif

$(RUNTIME): pyproject.toml | $(BIN)/python
	@$(call install,--editable .)
	@touch $@

# All cores compile what pip would compile on one, but for tests and lexers of others.
$(TESTING): pyproject.toml | $(BIN)/python
	@$(call install,--editable '.[all]' --group test,--no-compile)
	@-$(BIN)/python -m compileall -qq -j 0 -x '/(_?tests|lexers)/' $(VENV)/lib
	@touch $(RUNTIME) $@

$(STAMP): $(TESTING)
	@$(call install,--group dev)
	@touch $@

run: $(RUNTIME) ## watch real orders flow into a warehouse, on a broker of its own (Ctrl-C drains)
	@$(BIN)/flowstream run pipelines.feed pipelines.orders --embedded --http $(ARGS)

test: $(TESTING) ## all tests that need no RabbitMQ and are not long (ARGS='-k name --lf')
	$(PYTEST) --ring test $(ARGS)

test-fast: $(TESTING) ## unit tests and properties, in seconds: on every save
	$(PYTEST) --ring fast $(ARGS)

test-all: setup ## every test, on the RabbitMQ brokers that are up (`make brokers`); what CI runs
	@# The nodes of the cluster are killed: with nothing else beside it. 5 is pytest's "no tests".
	$(PYTEST) --ring all --durations 25 $(ARGS); first=$$?; [ $$first = 0 -o $$first = 5 ] || exit $$first; \
	  $(BIN)/pytest -m cluster $(ARGS); second=$$?; [ $$second = 5 ] && exit $$first; exit $$second

lint: setup ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## rewrite the sources as ruff wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dashboards: setup ## write grafana/ and docs/metrics.md anew, from the metric catalogue
	$(BIN)/python -m grafana.generate

bench: setup ## measure beside the bare clients
	$(BIN)/python -m tests.benchmarks $(ARGS)

drawings: ## draw the pictures of the concepts anew, from the texts in docs/drawings
	$(PYTHON) docs/drawings/draw.py

screenshots: setup ## take the pictures of the docs anew (needs chromium and chromium-driver)
	$(BIN)/python -m tests.cli.screenshots
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m tests.cli.recording
	$(BIN)/python -m tests.monitor.screenshots

brokers: ## install and start real brokers, as root (BROKERS='3.10 4.0 4.3 cluster')
	$(PYTHON) tests/brokers/rabbitmq.py up $(BROKERS)

oracle: setup ## build the AMQP 1.0 codec that tests compare with (needs a C compiler)
	@# pip keeps what it has compiled, and may have been given a wheel.
	@$(if $(UV),$(call install,--group oracle),$(call pip,--group oracle))

docs: setup ## build the documentation site into site/; a warning is an error
	@$(call install,--group docs)
	$(BIN)/sphinx-build --fresh-env --write-all --fail-on-warning --keep-going --quiet \
	  --doctree-dir build/doctrees docs site

dist: $(RUNTIME) ## build the sdist and the wheel into dist/, and check both, as a release does
	@$(call install,--group release)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean: ## remove .venv, caches and build products (brokers stay)
	rm -rf $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
