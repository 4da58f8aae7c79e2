# Every target sets up .venv first, once. Without a GPU, UV_TORCH_BACKEND=cpu make setup saves 4 GB.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all torture lint type format bench lock clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv with all that training, tests and tools need
	@echo "ready: source .venv/bin/activate, then depthnet --help"

train: $(READY) ## train irv2_attn from scratch on built-in rooms, 10 to 30 minutes on two cores
	@echo "irv2_attn on built-in rooms, from random weights: 10 to 30 minutes on two cores"
	$(BIN)/python train.py experiment=rooms

test: lint type ## lint, type and test: some ten minutes on two cores
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal -m "not exhaustive"

test-all: lint type ## the same with every further case: before a release
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal

torture: $(READY) ## inject every fault, many times: half an hour on two cores, and a table
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python tests/faults/torture.py

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## check types
	$(BIN)/mypy

format: $(READY) ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## time a training step and inference beside the bare encoder and an ordinary U-Net
	$(BIN)/python benchmarks/train_step.py

lock: ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev --extra bench --extra sweep \
		--no-header --no-annotate pyproject.toml --output-file requirements.lock

clean: ## remove .venv; runs/ stays
	rm -rf .venv

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[dev,bench,sweep]'
	@touch $@
