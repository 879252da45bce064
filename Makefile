# The first of these that can make an environment is taken; `make install PYTHON=...` takes the one it names.
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
CAN_INSTALL := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
# Four processes keep two cores busy: tests of services wait much. A file's tests run in one process.
WORKERS ?= 4
# Forked where they can be (tests/workers.py): what has asked CUDA for something cannot, nor do others than Linux like it.
IS_FORKED := $(and $(wildcard /proc/self),$(if $(wildcard /dev/nvidia0),,yes))
# What is checked; of docs/ the Python alone, for ruff would write the pages' examples its own way.
CODE := src launchers tests benchmarks docs/conf.py docs/ext
PYTEST = $(BIN)/python -m pytest $(if $(IS_FORKED),--workers $(WORKERS),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

# Where this is set, each of the hundred programs that tests start compiles this package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast check lock bench docs ui tiny wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## make .venv with everything in it, at the versions of constraints.txt

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	@for python in $(PYTHONS); do \
	  if $$python -c '$(CAN_INSTALL)' 2>/dev/null; then echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); fi; \
	done; \
	echo 'make: none of $(PYTHONS) is a Python from 3.11 up with venv and pip; name one: make install PYTHON=...' >&2; exit 1
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

run: install  ## run the default cell: embedded model, embedded questions, G-NLL
	$(BIN)/probegrid

test: install  ## run all tests
	$(PYTEST)

test-fast: install  ## run the tests that take no service and little time, for every commit
	$(PYTEST) -m 'not slow'

check: install  ## lint, format, imports and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mypy

# What is locked stays; `make lock UPGRADE=mlflow` lets go of a package, `make lock UPGRADE=.` of all.
# What torch brings for CUDA it pins itself, and not every machine takes it.
UPGRADE ?= nothing
lock:  ## write constraints.txt anew: every package that a fresh install holds
	rm -rf build/lock && mkdir -p build
	grep -vE '^($(UPGRADE))' constraints.txt > build/lock.txt || true
	$(MAKE) install VENV=build/lock CONSTRAINTS=build/lock.txt
	{ grep '^#' constraints.txt; build/lock/bin/python -m pip freeze --exclude probegrid \
	  | grep -vE '^(nvidia|cuda|triton)-?' | sed 's/+[a-z0-9.]*$$//'; } > build/lock.txt
	mv build/lock.txt constraints.txt

bench: install  ## our engine beside stock generate, in one run
	$(BIN)/python benchmarks/answers.py

docs: install  ## build the site in build/docs; a dead link, or anything else Sphinx warns of, ends it
	$(BIN)/python -m sphinx -b html -W --keep-going --quiet -d build/doctrees docs build/docs
	@echo 'file://$(CURDIR)/build/docs/index.html'

ui: install  ## open the MLflow UI on what was recorded here
	@echo 'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=probegrid'
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000

tiny: install  ## train the embedded model again
	$(BIN)/python -m probegrid.embedded.train

wheel: install  ## build a wheel in dist/
	$(BIN)/python -m build --wheel

clean:  ## remove what the targets made, results and store excepted
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
