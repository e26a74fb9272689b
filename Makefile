# Two commands: `make demo` shows models working together, `make test` runs every test.
# Everything lives in .venv; nothing is downloaded but packages. A second call of either finds its work done.
#
#   PYTHON=python3.12 make test        another interpreter
#   UV_ARGS="--index URL" make test    further arguments for every installation (a torch index, for instance)
#   PIP_FIND_LINKS=DIR make test       local wheels are preferred
#   PYTEST_ARGS="-n 8" make test       further arguments for pytest

PYTHON ?= python3
VENV ?= .venv
# Files in the order they are found: the one that starts servers has few tests, and would come last otherwise.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
PYTEST_ARGS_PACKAGING ?= -n 2
PYTEST_ARGS_MATRIX ?= -n 2
UV_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/stamps
# Without isolation every build uses these few tools, once: hatchling for ours, setuptools for sources that others publish.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation \
	$(addprefix --find-links=,$(PIP_FIND_LINKS)) $(UV_ARGS)
MAINTAIN := $(BIN)/python -m moco_toolkit_authoring.maintain

PROJECTS := $(wildcard plugins/*/*/pyproject.toml contrib/*/pyproject.toml)

# Where the environment forbids writing bytecode at import, as containers often do, it is written here once.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)
COMPILE_OURS := $(if $(PYTHONDONTWRITEBYTECODE),@$(BIN)/python -m compileall -q moco_core plugins/*/*/moco_* contrib/*/moco_*)

export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.DELETE_ON_ERROR:
.PHONY: help demo test matrix lint format typecheck check packaging wheels bench install clean

help:
	@echo "make demo       several small models collaborate on a real task; prints the comparison (1 to 5 minutes)"
	@echo "make test       all tests"
	@echo "make matrix     a tiny model of every architecture, compared with transformers (20 minutes)"
	@echo "make check      lint, typecheck and the repository's own consistency"
	@echo "make packaging  build every package and test each one alone"
	@echo "make wheels     build every package into dist/"
	@echo "make bench      speed, as ratios"
	@echo "make format     repair what can be repaired: imports, generated tables, shared parts of pyprojects"
	@echo "make clean      remove .venv and build results"

demo: $(STAMP)/demo
	@$(BIN)/moco bench templates/runs/demo.yaml

test: $(STAMP)/all
	$(BIN)/python -m pytest $(PYTEST_ARGS)

matrix: $(STAMP)/all
	$(BIN)/python -m pytest plugins/pools/transformers/tests/test_transformers_matrix.py -m "matrix or not matrix" $(PYTEST_ARGS_MATRIX)

install: $(STAMP)/all

lint: $(STAMP)/all
	$(BIN)/ruff check .
	$(MAINTAIN) check

typecheck: $(STAMP)/all
	$(BIN)/mypy $$($(MAINTAIN) packages)

check: lint typecheck

format: $(STAMP)/all
	$(BIN)/ruff check --fix-only --quiet .
	$(MAINTAIN) sync

packaging: $(STAMP)/all
	$(BIN)/python -m pytest tests/packaging -m packaging $(PYTEST_ARGS_PACKAGING)

wheels: $(STAMP)/core
	@$(MAINTAIN) wheels dist

bench: $(STAMP)/all
	@set -e; for script in $(sort $(wildcard tests/benchmarks/bench_*.py)); do echo "== $$script"; $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# ---------------------------------------------------------------- installation, each step once

$(STAMP)/uv:
	@echo "creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "MoCo needs Python >= 3.11; found " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/core: $(STAMP)/uv pyproject.toml plugins/toolkits/authoring/pyproject.toml
	@echo "installing the core"
	@$(INSTALL) 'hatchling>=1.27' 'editables>=0.5' 'setuptools>=77' 'wheel>=0.43'
	@$(INSTALL) -e . -e plugins/toolkits/authoring
	@touch $@

$(STAMP)/demo: $(STAMP)/core $(PROJECTS)
	@echo "installing what the demonstration needs (torch is the large part)"
	@$(INSTALL) $(COMPILE) -e . $$($(MAINTAIN) editable demo)
	$(COMPILE_OURS)
	@touch $@

$(STAMP)/all: $(STAMP)/core $(PROJECTS)
	@echo "installing every package and the tools"
	@$(INSTALL) --compile-bytecode --group dev -e . $$($(MAINTAIN) editable)
	$(COMPILE_OURS)
	@touch $@
