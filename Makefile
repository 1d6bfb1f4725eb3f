# Every target sets itself up: a Python >= 3.12 is found, .venv made, pinned packages installed. A second run skips that.
SHELL := /bin/bash
READY := .venv/.ready
BIN := .venv/bin

.PHONY: demo test test-all check format clean

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh

demo: $(READY)  ## simulate -> ingest -> fleet -> release -> score -> report, offline, about two minutes
	@$(BIN)/b3dist demo

check: $(READY)  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## everything that takes minutes
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: check  ## also what is long: every kill test repeated, packs and quarantine on Ray, jobs, many seeds
	$(BIN)/python -m pytest -m "not gpu"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
