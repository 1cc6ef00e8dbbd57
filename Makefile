# `make quickstart` and `make test` set themselves up; a second call installs nothing again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := -n auto --maxprocesses 4 --dist worksteal

.PHONY: quickstart test test-long docs clean

quickstart: $(VENV)/.installed
	@$(BIN)/sharpen quickstart

test: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not long" $(WORKERS)

test-long: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(WORKERS)

docs: $(VENV)/.installed-test
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/docs
	@echo "Open build/docs/index.html"

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sharpen needs Python 3.11 or newer: try 'make $(MAKECMDGOALS) PYTHON=python3.12'"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "To download: 400 MB of packages, of which PyTorch's CPU build 192 MB; then the model, 93 MB."
	@echo "  Where pip would choose PyTorch's CUDA build instead (several GB), stop and run"
	@echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make $(MAKECMDGOALS)"
	@echo "Installing into $(VENV): one to five minutes ..."
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[fast]'
	@touch $@
	@echo "Installed."

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need: 110 MB more, of which the trackers 75 MB ..."
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[test]'
	@touch $@
