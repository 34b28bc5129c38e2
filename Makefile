# Python 3.10 or newer and make are enough: the targets set up what they need, once.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# The stamp is written last, so a half-made environment never counts as made; its name carries the
# interpreter's version, so another PYTHON makes another environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
STAMP   := $(VENV)/.made-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo test quick oldest lint docs clean

help:
	@echo "make demo    train a small classifier on a tenth of every batch, and compare (a minute)"
	@echo "make test    everything that must hold: style, types, docs, tests"
	@echo "make quick   tests of the core alone: unit, property and contract"
	@echo "make oldest  tests of the core with the oldest packages (PYTHON=python3.10 to 3.12)"
	@echo "make lint    style and types only"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove what was built, the environment excepted"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "subsetopt needs Python 3.10 or newer; try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV): once, some minutes."
	@rm -f $(VENV)/.made-*
	@$(BIN)/python -c 'import sys, pip; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' \
		2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/subsetopt train --data digits --rate 0.1 --epochs 60 --threads 1 --policy obtf \
		--policy adaselection --policy importance --policy balanced

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	@rm -rf site
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env \
		--doctree-dir build/doctrees docs site
	@echo "Built site/index.html"

# pytest comes last, so that the closing lines are its own.
test: lint docs
	$(BIN)/python -m pytest

quick: $(STAMP)
	$(BIN)/python -m pytest tests/unit tests/property tests/contract

oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement tests/packaging/oldest.txt --editable .
	build/oldest/bin/python -m pytest tests/unit tests/property tests/contract tests/cli tests/ledger

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find subsetopt adapters tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
