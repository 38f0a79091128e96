# The two main commands are `make repro` and `make test`. Both set up .venv first and do nothing twice.

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
# The Python that makes .venv, or the one in it: the first of these in a version that the pinned packages support.
PYTHON ?= $(shell for name in $(BIN)/python python3 python3.13 python3.12 python3.11; do \
  $$name -c "$(SUPPORTED)" 2>/dev/null && echo $$name && break; done)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# DVC runs the stages as `python -m ...`: that python must be the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro serve test releases lint docs gpu-check clean help

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

repro: .venv/installed   ## run every stage whose inputs changed, then the gates; MODEL=NAME for another model
	python -m tools.repro $(if $(MODEL),--model $(MODEL))
	python -m tools.gate

serve: .venv/serving     ## serve artifacts/release, which `make repro` makes
	python -m tools.serve

test: .venv/tests        ## run the tests
	python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

releases: .venv/serving  ## release every model, and what tools.new_model writes, and check that it answers
	python -m tools.releases

lint: .venv/linters      ## run ruff and mypy
	ruff format --check .
	ruff check .
	mypy

docs: .venv/installed    ## update the generated parts of README.md and docs/
	python -m tools.docs

gpu-check: .venv/installed   ## validate and time the variants on an NVIDIA GPU, and compare them with PyTorch
	python -m tools.gpu_check

clean:           ## remove the environment
	rm -rf .venv

.venv/installed: requirements.txt constraints.txt
	@$(or $(PYTHON),false) -c "$(SUPPORTED)" 2>/dev/null || { echo "error: Python 3.11, 3.12 or 3.13 is needed, and" \
	  "$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1): make PYTHON=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(if $(filter $(BIN)/python,$(PYTHON)),,--clear) .venv
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/linters: .venv/tests requirements-dev.txt
	python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv/serving: .venv/installed requirements-serving.txt
	python -m pip install --quiet --disable-pip-version-check -r requirements-serving.txt
	touch $@

.venv/tests: .venv/serving requirements-test.txt requirements-ray.txt
	python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@
