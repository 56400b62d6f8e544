# `make help` lists the targets. Everything runs in .venv, built on first use from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Written last, so that an install that was cut off starts again.
STAMP := .venv/.installed
DOCS_STAMP := .venv/.docs-installed

.DEFAULT_GOAL := help
.PHONY: help install check test test-slow bench demo docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## build .venv with the package, its tests and its checks

# pip older than 25.1 knows no --group: the one that Python 3.11 brings replaces itself first.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[plots]' --group test --group check
	@touch $@

check: $(STAMP) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(STAMP) ## the fast tests, with branch coverage of src
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

test-slow: $(STAMP) ## the tests marked slow
	$(BIN)/python -m pytest -m slow

bench: $(STAMP) ## print every number that the project promises
	$(BIN)/python benchmarks/report.py

demo: $(STAMP) ## backpropagation, DFA and FDFA on real handwritten digits
	$(BIN)/fdfa compare --data digits --methods backpropagation dfa fdfa --epochs 20 --seeds 3 \
		--out runs/demo --overwrite

docs: $(DOCS_STAMP) ## build docs/_build/html, every warning an error, and run all examples
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d docs/_build/doctrees \
		docs docs/_build/html
	$(BIN)/python -m pytest -n0 -m '' tests/docs
	@echo 'Open docs/_build/html/index.html.'

# Sphinx is installed for `make docs` alone: the tests need none.
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@

clean: ## remove what was built here, .venv and the runs of `make demo` included
	rm -rf .venv build dist docs/_build runs/demo .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
