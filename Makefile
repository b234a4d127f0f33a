# The verbs of this project. `make demo` and `make test` set everything up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that really runs as 3.11 or 3.12 (a version manager's shim may exist and fail).
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.lock)
LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
# A CPU build of torch needs none of the 4.5 GB of CUDA packages that the lock lists for PyPI's build.
CPU_TORCH := $(wildcard $(PIP_FIND_LINKS)/torch-*+cpu-*.whl)
PACKAGES := $(if $(CPU_TORCH),<(grep -vE '^(nvidia-|cuda-|triton==)' requirements.lock),requirements.lock)
# Tools that look at Grocer from outside, each in an environment of its own: the lock knows none of them.
TOOL := .venv/bin/uv tool run --quiet

.PHONY: help setup demo test coverage mutation lint format images kind-up test-kind kind-down docs lock audit licences \
	sbom scan clean

help: ## List the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: .venv/.installed ## Make .venv with the exact versions of requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "grocer needs Python 3.11 or 3.12 on PATH (or PYTHON=/path/to/python3.11)" >&2; exit 2; }
	@echo "Setting up .venv from requirements.lock ..."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python $(LINKS) -r $(PACKAGES)
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.installed ## Run the whole pipeline on the sample catalogue (build/demo); SET="gate.min_accuracy=0.995"
	@.venv/bin/grocer run --data examples/catalogue --out build/demo --recipe tiny --replace $(SET:%=--set %)

test: .venv/.installed ## Run the default test suite (a process a core, and one thread each)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

coverage: .venv/.installed ## The default suite, and the lines of grocer and serving that it runs (92 % at least)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --cov

mutation: .venv/.installed ## Break gate, labels, split and packing on purpose: 85 % must fail a test
	@rm -rf mutants
	@OMP_NUM_THREADS=1 .venv/bin/mutmut run
	@.venv/bin/mutmut results --all true | .venv/bin/python -m tests.mutation_score 85

lint: .venv/.installed ## ruff, mypy on grocer, and the import contract
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: .venv/.installed ## Rewrite the code in the house style
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

images: ## Build the images; REGISTRY=host/path pushes them and records their digests
	@images/build $(REGISTRY)

kind-up: .venv/.installed ## A cluster on this machine, with all that Grocer needs in one; after make images
	@kind/up

test-kind: .venv/.installed ## Run tests/cluster on it
	@kind/test

kind-down: ## Remove it
	@kind/down

docs: .venv/.installed ## Write docs/configuration.md anew from the settings
	@.venv/bin/python -m grocer.config.docs docs/configuration.md

lock: ## Resolve requirements.lock anew from pyproject.toml
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

audit: .venv/.installed ## Ask PyPI for known holes in the packages of the lock
	@mkdir -p build
	@$(TOOL) pip-audit@2.10.1 --requirement requirements.lock --no-deps --disable-pip --strict \
		--progress-spinner off | tee build/audit.txt || { [ -s build/audit.txt ] && exit 1; \
		echo "audit: nothing was checked: no service told of known holes, as said above" >&2; exit 2; }

licences: .venv/.installed ## Write docs/licences.md anew, on Linux with PyPI's torch
	@mkdir -p build
	@{ printf '# Licences\n\nOf each package in the lock, on Linux, as it says of itself. `make licences` writes this page;\n'; \
		printf '[dependencies](decisions/dependencies.md#licences) says what to make of it.\n\n'; \
		$(TOOL) pip-licenses@5.5.5 --python .venv/bin/python --with-system --format markdown \
		--packages $$(sed '/^#/d; s/==.*//' requirements.lock | sort -u); } >build/licences.md
	@mv build/licences.md docs/licences.md

sbom: .venv/.installed ## Write build/sbom.json: what .venv holds, with licences, as CycloneDX
	@mkdir -p build
	@$(TOOL) --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
		--gather-license-texts --validate --output-file build/sbom.json .venv/bin/python

scan: ## Known holes in the images, by trivy or grype; after make images
	@images/scan

clean: ## Remove what was built (not .venv)
	rm -rf build mutants .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
