PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install run test check bench ui tiny wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## make .venv with everything in it, at the versions of constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: install  ## run the default cell: embedded model, embedded questions, G-NLL
	$(BIN)/probegrid

test: install  ## run all tests
	$(BIN)/python -m pytest

check: install  ## lint, format, imports and types
	$(BIN)/ruff check src launchers tests benchmarks
	$(BIN)/ruff format --check src launchers tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: install  ## our engine beside stock generate, in one run
	$(BIN)/python benchmarks/answers.py

ui: install  ## open the MLflow UI on what was recorded here
	@echo 'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=probegrid'
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000

tiny: install  ## train the embedded model again
	$(BIN)/python -m probegrid.embedded.train

wheel: install  ## build a wheel in dist/
	$(BIN)/python -m build --wheel

clean:  ## remove what the targets made, results and store excepted
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
