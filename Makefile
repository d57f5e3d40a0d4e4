# Two commands: `make demo` and `make test`. Each makes .venv, installs what it needs once, and does its job.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/demo
	$(BIN)/eztorch-sce demo

test: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2

clean:
	rm -rf .venv build eztorch_sce.egg-info

# A stamp says what is installed; it is old when the list of packages has changed.
.venv/demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/demo

$(BIN)/python:
	$(PYTHON) -m venv .venv
