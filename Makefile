# The two commands of the README, and those that developers run. Everything lives in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help demo test check docs format dist clean

help:  ## What there is to make.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.user  ## Install, then distil ten unlike teachers into one student: two minutes.
	@rm -rf runs/demo
	$(BIN)/fedkd simulate demo

test: $(VENV)/.developer  ## Install, then run all tests with coverage, a process a core.
	$(BIN)/python -m pytest --cov --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

check: $(VENV)/.developer  ## Format, lint, types, layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.documents  ## Run the tutorials and build the site into build/site; a warning ends it.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.developer  ## Rewrite the code in the house's style.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dist: $(VENV)/.developer  ## Build wheel and sdist, check them, and run the demo from the wheel alone.
	@rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/fedkd simulate demo --out demo

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	@touch $@

$(VENV)/.developer: $(VENV)/.user
	$(INSTALL) '.[dev,lora,medical,onnx,opencv,parquet,ray,text,track,vision]'
	@touch $@

$(VENV)/.documents: $(VENV)/.user
	$(INSTALL) '.[docs]'
	@touch $@

clean:  ## Remove what was made here, runs excepted.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist build
