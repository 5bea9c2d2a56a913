# One command for each job. Needs Python (3.11 or later), git and make; everything else is
# installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
KERNELS := hatch_build.py $(wildcard ncp_agents/torch/kernels/*.[ch])
STAMP := .venv/.installed
WORKERS ?= 2  # test processes; each keeps to one thread, so that they do not fight for the cores

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check bench

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

install: $(STAMP)  ## create .venv with the package, its tools and the pinned versions

$(STAMP): pyproject.toml constraints.txt $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,play]'
	touch $@

demo: $(STAMP)  ## a saved policy plays Pong; its games are recorded and cloned
	$(BIN)/python scripts/demo.py

test: $(STAMP)  ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

check: $(STAMP)  ## format, lint, types and tests: what must pass before a commit
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

bench: $(STAMP)  ## measure every published speed again, half an hour
	@set -e; for name in cells dataset evaluation ports rendering throughput; do \
		echo "== $$name"; $(BIN)/python scripts/benchmarks/$$name.py; done
