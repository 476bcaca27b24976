# Two commands on a fresh machine: `make train` and `make test`. Both are .PHONY: there is a folder train/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make test` runs once more with arrays on a stand-in for CuPy: layers, and solves whose times are traced.
ON_DEVICE := tests/layers $(addprefix tests/solvers/,test_event_gradients.py test_jumps.py)

.PHONY: train test nightly lint format clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'
.PHONY: help

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "odegrad needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

train: $(VENV)/installed  ## train a TA-BN neural ODE on the digits that ship with the package
	$(BIN)/odegrad train digits

lint: $(VENV)/installed-test  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p $(VENV)/typecheck && ln -sfn "$(CURDIR)" $(VENV)/typecheck/odegrad
	$(BIN)/mypy

test: lint  ## lint, types and the whole test suite
	$(BIN)/python -m pytest -n auto -q
	$(BIN)/python -m pytest -n auto -q --device fake $(ON_DEVICE)

nightly: $(VENV)/installed-test  ## gradients of 2,000 drawn networks, and all tests with arrays on a stand-in for CuPy
	ODEGRAD_HYPOTHESIS=nightly $(BIN)/python -m pytest -n auto -q tests/solvers/test_drawn_gradients.py
	$(BIN)/python -m pytest -n auto -q --device fake

format: $(VENV)/installed-test  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment and build outputs
	rm -rf $(VENV) build dist *.egg-info
