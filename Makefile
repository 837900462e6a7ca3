# Everything runs from an environment in .venv, made on first use and again whenever pyproject.toml changes.
# `make test PYTHON=python3.13` runs on that Python, from an environment of its own in .venv-python3.13.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv$(if $(filter command line,$(origin PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all mutants bench lint types format clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

demo: $(VENV)/.demo  ## Train six methods on real digits; prints a table and the path of a plot.
	$(BIN)/python examples/multi_digits.py

test: lint types  ## What CI runs: lint, types, tests and doctests with warnings as errors.
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: lint types  ## The same with the slow tests, all of it compiled as users compile.
	MTLJAX_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

mutants: $(VENV)/.test  ## Which one-line mistakes the tests notice; slow, not in CI.
	$(BIN)/python -m tests.mutants

bench: $(VENV)/.bench  ## Time methods, engines and solvers, beside peers.
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.solvers
	$(BIN)/python -m benchmarks.stacked
	$(BIN)/python -m benchmarks.many_tasks

lint: $(VENV)/.test  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test  ## Check types.
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/.test  ## Rewrite the files in the house style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment, the caches and what the demo wrote.
	rm -rf $(VENV) build dist outputs .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "mtljax needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: EXTRAS := demo
$(VENV)/.test: EXTRAS := test
$(VENV)/.bench: EXTRAS := bench,test

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing mtljax[$(EXTRAS)] into $(VENV); the first time this takes a minute or two."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@
