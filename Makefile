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

# Without MODEL=NAME, the tools take the first model that models.yaml lists.
OF_MODEL := $(if $(MODEL),--model $(MODEL))

.PHONY: repro repro-all serve test releases lint docs gpu-check clean help

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

repro: .venv/installed   ## run every stage of a model whose inputs changed, then its gates; MODEL=NAME, or the first
	python -m tools.repro $(OF_MODEL)
	python -m tools.gate $(OF_MODEL)

repro-all: .venv/installed   ## the same for all models that models.yaml lists, and the page artifacts/overview.html
	python -m tools.repro --all
	python -m tools.overview
	python -m tools.gate --all

serve: .venv/serving     ## serve the release that `make repro` makes; MODEL=NAME, or the first
	python -m tools.serve $(OF_MODEL)

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

gpu-check: .venv/installed   ## compare the variants with PyTorch on an NVIDIA GPU, in answers and time; MODEL=NAME, or the first; BATCH=N
	python -m tools.gpu_check $(OF_MODEL) $(if $(BATCH),--batch $(BATCH))

clean:           ## remove the environment
	rm -rf .venv

.venv/installed: requirements.txt constraints.txt
	@$(or $(PYTHON),false) -c "$(SUPPORTED)" 2>/dev/null || { echo "error: Python 3.11, 3.12 or 3.13 is needed, and" \
	  "$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1): make PYTHON=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(if $(filter $(BIN)/python,$(PYTHON)),,--clear) .venv
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt
# Without git, as in an unpacked archive, there is nothing to merge.
	git config merge.dvc-lock.driver "$(BIN)/python -m tools.merge_lock %O %A %B %P" || true
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
