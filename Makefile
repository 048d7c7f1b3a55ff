# `make demo` and `make test` do all their own set-up; a second run of either skips it.
#   make demo        the main job on what the repository ships: a table, a figure and run folders under runs/demo
#   make test        format, lint and type checks, then the tests (the slow ones left out)
#   make test-all    the same with the slow tests
#   make test-beam   data prepared through Apache Beam, in an environment of its own
#   make papers      every figure and verdict of the papers in miniature, from their committed results
#   make papers-run  these results: trains what they lack, paper after paper; goes on where it was stopped
#   make report      the papers as a site: report/index.html
# Another interpreter: make demo PYTHON=python3.12. Another environment: make test VENV=/tmp/venv.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_FLAGS ?=
# Processes of the tests, each with the tests of a file at a time; one takes up to 5 GB.
WORKERS ?= 2

# The first interpreter that starts and is new enough; a pyenv shim may be there without its Python.
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif

PIP := $(BIN)/python -m pip --disable-pip-version-check
PAPERS := $(patsubst experiments/%/sweep.py,%,$(wildcard experiments/*/sweep.py))
SOURCES := prompt_tuning tests setup.py $(wildcard experiments paper_figures benchmarks)

.PHONY: demo test test-all test-beam papers papers-run report lint format types benchmark clean

demo: $(VENV)/.base-stamp
	$(BIN)/python -m experiments.demo.run --workdir=runs/demo

test: lint types
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist=loadfile $(PYTEST_FLAGS)

test-all: lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile $(PYTEST_FLAGS)

test-beam: $(VENV)-beam/.stamp
	PYTHONPATH=. $(VENV)-beam/bin/python -m pytest tests/test_prepare_beam.py

papers: $(VENV)/.base-stamp
	$(BIN)/python -m paper_figures

papers-run: $(VENV)/.base-stamp
	for paper in $(PAPERS); do echo "$$paper"; $(BIN)/python -m experiments.$$paper.sweep || exit; done

report: $(VENV)/.report-stamp
	$(BIN)/python -m paper_figures.site --output=report

lint: $(VENV)/.test-stamp
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.test-stamp
	$(BIN)/mypy prompt_tuning

format: $(VENV)/.test-stamp
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

benchmark: $(VENV)/.test-stamp
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.methods

clean:
	rm -rf $(VENV) $(VENV)-beam build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The order-only prerequisite keeps the interpreter's own time stamp out of it.
$(VENV)/.base-stamp: setup.py constraints.txt pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

# Apache Beam wants another protobuf than the rest: an environment of its own.
$(VENV)-beam/.stamp: constraints-beam.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip --disable-pip-version-check install --quiet -r constraints-beam.txt
	@touch $@

$(VENV)/.report-stamp: $(VENV)/.base-stamp
	$(PIP) install --quiet -c constraints.txt -e ".[report]"
	@touch $@

# torch by itself first: asked for together with transformers and peft, pip may choose a build with several gigabytes of CUDA.
$(VENV)/.test-stamp: $(VENV)/.base-stamp
	@echo "installing the test extras into $(VENV)"
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e ".[test]"
	@touch $@
