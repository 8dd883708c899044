# `make demo` and `make test` also do the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo compare first-rows test test-gpu test-slurm bench lint format reference readme goldens clean
help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## create .venv with the pinned dependencies

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[pinned,suite,dev]'
	@touch $@

demo: $(INSTALLED)  ## run the demo study and write its report (minutes on a CPU, no network)
	@$(BIN)/python tools/demo.py
	@if [ -t 1 ] && { [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; }; then \
	  $(BIN)/python -m webbrowser results/demo/report/index.html; fi

compare: $(INSTALLED)  ## how far your results are from the committed records: make compare [STUDY=demo]
	@$(BIN)/python -m skd diff --reference $(or $(STUDY),demo)

first-rows: $(INSTALLED) test-gpu bench  ## on a CUDA GPU: run its tests, the benchmark and two rows of CIFAR-100 (a day)
	$(BIN)/snakemake --profile local all --config study=first-rows
	@$(BIN)/python -m skd results first-rows
	@echo "Its report: results/first-rows/report/index.html"

# Each worker runs whole test files, whose tests share fixtures. Each training uses one thread.
test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-gpu: $(INSTALLED)  ## run the tests that need a CUDA GPU, and each CUDA graph test alone
	$(BIN)/python tools/gpu_tests.py

bench: $(INSTALLED)  ## compare the speed of the training loop with the field's common one (CIFAR-100, two pairs)
	$(BIN)/python -m skd bench cifar100 --pair resnet56--resnet20 --pair resnet32x4--resnet8x4

test-slurm: $(INSTALLED)  ## install SLURM and run the tests on it (as root on Debian)
	tests/install.sh slurm
	$(BIN)/python -m pytest -m slurm -rs --durations=0 tests/slurm

lint: $(INSTALLED)  ## check the code with ruff, snakefmt and snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

format: $(INSTALLED)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt workflow

reference: $(INSTALLED)  ## copy a finished study's records to results/reference/: make reference STUDY=NAME
	$(BIN)/python tools/reference.py $(STUDY)

readme: $(INSTALLED)  ## update the results and the picture in README and docs from results/reference/
	$(BIN)/python tools/readme.py

goldens: $(INSTALLED)  ## write the expected reports of the tests again; read the diff
	$(BIN)/python tools/goldens.py

clean:  ## remove the environment (never results/)
	rm -rf $(VENV)
