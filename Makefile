# Two commands are all a stranger needs: `make demo` and `make test`.
# Each makes .venv and installs what it needs, pinned by constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
# One process a core; a file's tests stay together, since they share what is slow to make.
UNIT_TESTS := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/unit
# Tests of real processes wait more than they compute: two files at a time, on any machine.
PROCESS_TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile tests/contract tests/e2e tests/chaos tests/docs
# Tests share the cores: threads that spin while they wait for each other stop those of other processes.
test unit chaos: export GOMP_SPINCOUNT = 1000
SOURCES := sdk service backends model_zoo tests examples

.PHONY: demo test chaos kernels unit compat bench peers recipes lint types fmt imports clean system

demo: $(VENV)/.service system kernels
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev system kernels
	$(UNIT_TESTS)
	$(PROCESS_TESTS)

# Faults and kills in full, the slow ones too; then jobs once more as a user without any capability.
chaos: $(VENV)/.dev system kernels
	RIDGELINE_CHAOS=1 $(BIN)/python -m pytest tests/chaos tests/e2e/faults tests/e2e/test_training_jobs.py
	unshare --user --map-user=1000 --map-group=1000 \
		$(BIN)/python -m pytest tests/e2e/faults tests/e2e/test_training_jobs.py

unit: $(VENV)/.dev kernels
	$(UNIT_TESTS)

# Before anything needs them: replicas see this folder, and cannot write here.
kernels: $(VENV)/.service
	@$(BIN)/python -m ridgeline_backends.cpu.kernels.build >/dev/null

# AWS's own clients, each in a virtual environment of its own, against a service started for it.
compat: $(VENV)/.dev system
	$(BIN)/python tests/compat/run.py

bench: $(VENV)/.dev system
	$(BIN)/python tests/bench/run.py
	$(BIN)/python tests/bench/serving.py
	$(BIN)/python tests/bench/constrained.py
	$(BIN)/python tests/bench/quality.py
	$(BIN)/python tests/bench/cold_start.py
	$(BIN)/python tests/bench/roofline.py
	$(BIN)/python tests/bench/jobs.py
	$(BIN)/python tests/bench/report.py

# The servers that ours is compared with, each in an environment of its own.
peers: $(VENV)/.dev
	$(BIN)/python tests/bench/install_peers.py

# The environment of fine-tuning jobs, and the tests that train tiny models in it.
recipes: $(VENV)/.dev
	$(BIN)/python tests/support/recipe_jobs.py
	$(BIN)/python -m pytest tests/unit/recipes tests/e2e/test_zoo_training.py

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) .venvs .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# User code runs in a bubblewrap sandbox; without it `unshare` serves, where the kernel allows that.
system:
	@command -v bwrap >/dev/null || infra/install-bubblewrap.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.service: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing the service into $(VENV) (torch is the large part) ..."
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[service,cpu,demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.service
	@$(PIP) -e '.[service,cpu,demo,dev]'
	@touch $@
