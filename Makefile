# Every target does its own set-up. Needs Python 3.11 or newer, git and make; nothing else.
PYTHON ?= python3
CONFIG ?= samples/streams.yaml
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup run-streams test check lint export samples bench faults fuzz soak soak-faults gpu-check audit lock clean

help:            ## Show what there is to make.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "framewarden needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "framewarden: installing pinned dependencies into $(VENV) (about 2 GB, once)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP)  ## Install everything into .venv (leaves .venv/bin/framewarden).
	@$(BIN)/framewarden engine fetch --quiet

# The samples end by themselves; a config of your own runs until you stop it.
run-streams: setup  ## Screen the streams of CONFIG (default: the samples).
	@if [ "$(CONFIG)" = samples/streams.yaml ]; then \
	  $(BIN)/python -m samples.make_clips && $(BIN)/framewarden run $(CONFIG) --exit-at-end; \
	else $(BIN)/framewarden run $(CONFIG); fi

samples: setup   ## Make the sample clips.
	@$(BIN)/python -m samples.make_clips

test: setup      ## Run every test.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 1

lint: $(STAMP)   ## Check format, lint and types.
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

# PyTorch is for this test alone: 0.9 GB beside .venv, whose packages it sees.
TORCH  := torch==2.13.0
EXPORT := .venv-export/bin/python
export: setup    ## Test the tutorial's export from PyTorch, which it installs.
	@test -x $(EXPORT) || $(PYTHON) -m venv .venv-export
	@echo "framewarden: installing PyTorch into .venv-export (about 1 GB, once)" >&2
	@$(EXPORT) -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(EXPORT) -c "import site, sys; from pathlib import Path; \
	  beside = Path('$(VENV)').resolve() / Path(site.getsitepackages()[0]).relative_to(sys.prefix); \
	  Path(site.getsitepackages()[0], 'beside.pth').write_text(f'import site; site.addsitedir({str(beside)!r})')"
	@REQUIRE_TORCH=1 $(EXPORT) -m pytest tests/test_export.py

check: lint test export ## Format, lint, types and tests.

bench: setup     ## Measure, against an OpenCV loop in the same run.
	@$(BIN)/framewarden bench

faults: setup    ## Every fault against every promise, as a table in docs/reports.
	@$(BIN)/python -m tests.faults --report docs/reports/faults.md

fuzz: setup      ## 2,000 damaged inputs, and a report in docs/reports.
	@$(BIN)/python -m tests.fuzz --cases 2000 --report docs/reports/fuzz.md

MINUTES ?= 60
soak: setup      ## Streams for an hour (MINUTES=…): memory, threads and descriptors must stay flat.
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) --report docs/reports/soak.md

soak-faults: setup ## The same with random faults: nothing may be lost.
	@$(BIN)/python -m tests.soak --faults --minutes $(MINUTES) --report docs/reports/soak-faults.md

# With a PYTHON of your own nothing is installed: what it lacks stands in the report.
gpu-check:       ## Run all that needs a GPU, measure it, write a report.
	@if [ "$(origin PYTHON)" = file ]; then $(MAKE) --no-print-directory setup && $(BIN)/python -m tests.gpu.check; \
	else $(PYTHON) -m tests.gpu.check; fi

audit: $(STAMP)  ## Every dependency is pinned by hash and has no known advisory (needs the network).
	@$(BIN)/python .ci/check_lock.py requirements.lock
	@$(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet pip-audit
	@.venv-audit/bin/pip-audit -r requirements.lock --require-hashes --disable-pip

lock:            ## Pin the dependencies anew, with hashes.
	uv pip compile --universal --generate-hashes --no-header --no-annotate --extra dev --python-version 3.11 \
	  --no-emit-index-url --no-emit-find-links -o requirements.lock pyproject.toml build-requirements.in

clean:           ## Remove what make made.
	rm -rf $(VENV) .venv-audit .venv-export .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis state samples/clips bench-out
