# One command for each job. Needs Python (3.11 or later), git and make; everything else is
# installed into .venv, and what needs TensorFlow into .venv-tf.

PYTHON ?= python3
WORKERS ?= 2  # test processes; each keeps to one thread, so that they do not compete for the cores

BIN := .venv/bin
BIN_TF := .venv-tf/bin
KERNELS := hatch_build.py $(wildcard ncp_agents/torch/kernels/*.[ch])
PYTEST := python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo lint test test-torch test-tf check bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: .venv/.installed  ## create .venv with the package, its tools and the pinned versions

.venv/.installed: EXTRA := dev
.venv-tf/.installed: EXTRA := dev-tf
.venv/.installed .venv-tf/.installed: pyproject.toml constraints.txt $(KERNELS)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRA)]'
	touch $@

demo: .venv/.installed  ## a saved policy plays Pong; its games are recorded and cloned
	$(BIN)/python scripts/demo.py

lint: .venv/.installed  ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

test: test-torch test-tf  ## run all tests, slow ones included

test-torch: .venv/.installed  ## those that run in .venv
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) -m ''

test-tf: .venv-tf/.installed  ## those that need TensorFlow, in .venv-tf
	OMP_NUM_THREADS=1 $(BIN_TF)/$(PYTEST) -m tensorflow $$(grep -l mark.tensorflow tests/test_*.py)

check: lint test  ## what must pass before a commit

bench: .venv/.installed .venv-tf/.installed  ## measure every published speed again, half an hour
	@set -e; for name in cells dataset evaluation rendering throughput; do \
		echo "== $$name"; $(BIN)/python scripts/benchmarks/$$name.py; done
	@echo "== ports"; $(BIN)/python scripts/benchmarks/ports.py --only keras-jax keras-torch mlx
	$(BIN_TF)/python scripts/benchmarks/ports.py --only keras-tensorflow keras-xla
