# `make demo` and `make test` create .venv and install what they need on first use.
PYTHON ?= python3
# Without compiled files, each of the hundreds of processes that the tests start compiles PyTorch, which takes 10 seconds.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin

.PHONY: demo test survival long site clean

demo: .venv/demo
	$(BIN)/eztorch-sce demo

# Two workers use both cores; more threads would wait for each other.
test: export OMP_NUM_THREADS = 1
test: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Kills 40 trainings at random instants, starts them again, and compares what they leave: about 10 minutes.
survival: export OMP_NUM_THREADS = 1
survival: .venv/test
	$(BIN)/pytest -m long -vv tests/test_survival.py tests/test_signals.py tests/training/test_nodes.py tests/test_locks.py

# Every test that `make test` leaves out for its time: about 20 minutes.
long: export OMP_NUM_THREADS = 1
long: .venv/test
	$(BIN)/pytest -n 2 --dist loadgroup -m long

site: .venv/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv dist site

# Stamp files record what is installed; a change of the package lists makes them out of date.
# --no-compile: compiling every installed file takes 40 seconds, and Python compiles what it imports.
.venv/demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e .
	touch $@

.venv/test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/demo

$(BIN)/python:
	$(PYTHON) -m venv .venv
