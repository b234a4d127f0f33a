# `make help` lists the targets. `make demo` and `make test` do all set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that runs as Python 3.11 or 3.12. A version manager's shim may exist and fail.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
# Runs audit tools in isolated environments, so that their dependencies do not constrain the lock.
TOOL := .venv/bin/uv tool run --quiet
COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --generate-hashes \
	--custom-compile-command "make lock"

.PHONY: help setup demo test test-spark java coverage mutation lint format images kind-up test-kind kind-down docs lock audit licences \
	sbom scan clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: .venv/.installed ## Create .venv with the exact versions in requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "grocer needs Python 3.11 or 3.12 on PATH (or PYTHON=/path/to/python3.11)" >&2; exit 2; }
	@echo "Setting up .venv from requirements.lock ..."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--requirement <(awk '/^[^ ]/ { uv = /^uv==/ } uv' requirements.lock)
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python $(LINKS) \
		--requirement <(images/locked "$(PIP_FIND_LINKS)")
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# The sample has few names per department, so its gate requires less than the default 85 %; one epoch instead of two
# saves two minutes.
demo: .venv/.installed ## Run the whole pipeline on the sample catalogue (build/demo); SET="gate.min_accuracy=0.995"
	@.venv/bin/grocer run --data examples/catalogue --out build/demo --replace \
		--set train.num_train_epochs=1 --set gate.min_accuracy=0.7 --set evaluation.sample_size=500 $(SET:%=--set %)

test: .venv/.installed ## Run the default test suite in parallel
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

test-spark: java build/spark/.installed ## Run the tests of data.engine=spark (requires Java 17 or 21)
	@PYTHONPATH=build/spark OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -m spark --timeout 900 tests/grocer

java:
	@command -v java >/dev/null || { echo "Spark requires Java 17 or 21 on PATH" >&2; exit 2; }

build/spark/.installed: requirements-spark.lock .venv/.installed
	@echo "Setting up build/spark from requirements-spark.lock ..."
	@rm -rf build/spark
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes --target build/spark $(LINKS) \
		--build-constraint requirements.lock --requirement requirements-spark.lock
	@touch $@

coverage: .venv/.installed ## Run the default test suite; fail below 92 % line coverage
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --cov

mutation: .venv/.installed ## Run mutation tests on the gate, labels, split and packing; fail below 85 %
	@rm -rf mutants
	@OMP_NUM_THREADS=1 .venv/bin/mutmut run
	@.venv/bin/mutmut results --all true | .venv/bin/python -m tests.mutation_score 85

lint: .venv/.installed ## Run ruff, mypy and import-linter
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: .venv/.installed ## Format the code and apply automatic lint fixes
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

images: ## Build the container images; REGISTRY=host/path pushes them and records their digests
	@images/build $(REGISTRY)

kind-up: .venv/.installed ## Create a local kind cluster with everything Grocer needs (requires make images)
	@kind/up

test-kind: .venv/.installed ## Run tests/cluster on the kind cluster
	@kind/test

kind-down: ## Delete the kind cluster
	@kind/down

docs: .venv/.installed ## Generate the configuration and CLI references in docs/
	@.venv/bin/python -m grocer.config.docs docs/configuration.md
	@.venv/bin/python -m pipelines.cli.docs docs/cli.md

# requirements-spark.lock has only what the extra spark adds.
lock: ## Resolve pyproject.toml into requirements.lock and requirements-spark.lock, with the hashes of all files
	@$(COMPILE) --extra data --extra train --extra serve --extra pipeline --extra dev --output-file requirements.lock \
		pyproject.toml
	@$(COMPILE) --extra spark --constraint requirements.lock --output-file requirements-spark.lock \
		$$(sed -n 's/^\([^ #]*\)==.*/--no-emit-package=\1/p' requirements.lock | sort -u) pyproject.toml

audit: .venv/.installed ## Check the locked packages for known vulnerabilities
	@mkdir -p build
	@$(TOOL) pip-audit@2.10.1 --requirement requirements.lock --requirement requirements-spark.lock --no-deps --disable-pip --strict \
		--progress-spinner off | tee build/audit.txt || { [ -s build/audit.txt ] && exit 1; \
		echo "audit: no packages checked: vulnerability service unavailable (see above)" >&2; exit 2; }

licences: .venv/.installed ## Generate docs/licences.md (on Linux, with PyPI's torch)
	@mkdir -p build
	@{ printf '# Licences\n\nLicence metadata of every locked package on Linux. Generated by `make licences`;\n'; \
		printf '[dependencies](decisions/dependencies.md#licences) reviews the non-permissive ones.\n\n'; \
		$(TOOL) pip-licenses@5.5.5 --python .venv/bin/python --with-system --format markdown \
		--packages $$(sed -n 's/^\([^ #]*\)==.*/\1/p' requirements.lock | sort -u); } >build/licences.md
	@mv build/licences.md docs/licences.md

sbom: .venv/.installed ## Write build/sbom.json: a CycloneDX bill of materials of .venv, with licences
	@mkdir -p build
	@$(TOOL) --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
		--gather-license-texts --validate --output-file build/sbom.json .venv/bin/python

scan: ## Scan the images for known vulnerabilities with trivy or grype (requires make images)
	@images/scan

clean: ## Remove build outputs and caches (not .venv)
	rm -rf build mutants .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
