# Two commands on a fresh clone: `make demo` (the main job) and `make test` (everything that is checked).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CXX_SOURCES := $(shell find csrc -name '*.hpp' -o -name '*.cpp' | grep -v gaussian_tables.hpp)
CORE_SOURCES := $(shell find csrc -type f) CMakeLists.txt pyproject.toml constraints.txt
PYTHON_SOURCES := python tests csrc

.PHONY: build demo test lint format test-python clean help

help:
	@echo "make build   create $(VENV) and install the package with everything it needs"
	@echo "make demo    the main job: an encrypted personalised federation on synthetic CT, report in runs/demo"
	@echo "make test    lint, types and all tests (PPPML_DATA=DIR adds the real-data tests)"
	@echo "make format  rewrite sources in the project's style"

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch comes first and pinned, so that no later requirement can choose another build of it.
$(STAMP): $(CORE_SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.24" "ninja>=1.11"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	@touch $@

demo: build
	$(BIN)/pppml demo --out runs/demo

test: lint test-python

lint: build
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy --strict --package pppml_fast.cipher --package pppml_fast.aggregation --package pppml_fast.transport --module pppml_fast.params --module pppml_fast.quantize --module pppml_fast.tensors --module pppml_fast.layout

test-python: build
	$(BIN)/python -m pytest

format: build
	$(BIN)/ruff check --fix --quiet $(PYTHON_SOURCES) || true
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/clang-format -i $(CXX_SOURCES)

clean:
	rm -rf build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
