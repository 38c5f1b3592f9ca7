# The one list of commands. Each makes the environment first, if it is not there.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# The first Python here that is new enough and can make environments; `make PYTHON=…` names another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
PLUGINS := plugins/flowhooks-audit plugins/flowhooks-contracts plugins/flowhooks-notice plugins/flowhooks-opentelemetry plugins/flowhooks-timings plugins/flowhooks-webhooks
READY := $(VENV)/.ready
# What renews the lock and looks for advisories has an environment of its own: tests do without it.
UPKEEP := .upkeep
# Tests start hundreds of processes; where Python is told not to keep what it compiles, each compiles flowhooks anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-cluster test test-engines test-long soak mutants structure lint format docs bench wheel sbom release lock audit clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-13s %s\n' "$$name" "$$what"; done

$(READY): pyproject.toml tests/data/requirements/dev.txt $(PLUGINS:%=%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "flowhooks needs Python 3.11 or newer, with venv and pip; found none. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version): a minute or so, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement tests/data/requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable %)
	@touch $@

demo: $(READY) ## See it work: one call-back, its plugin's work, one error; stops by itself
	@$(BIN)/python tests/support/demo.py

demo-cluster: $(READY) ## See many processes at work: PostgreSQL, two servers, three workers, of which one is killed
	@$(BIN)/python tests/support/demo_cluster.py

test: lint ## Run every check and every test but those in real workflow engines, as continuous integration does
	@$(BIN)/python -m pytest -m "not java" --numprocesses auto --dist worksteal

# One process: Maven builds once, and its downloads do not race.
test-engines: $(READY) ## Run the tests in real workflow engines (needs Java and Maven), as continuous integration does
	@$(BIN)/python -m pytest -m java tests/engines

test-long: $(READY) ## Run the tests that take minutes each, such as long outages, each as it ends; then their figures
	@$(BIN)/python -m pytest -m long --timeout=600 --numprocesses auto --dist worksteal --verbose -rP

soak: $(READY) ## Send a million call-backs of all kinds to one server: memory flat, books balanced (some 20 minutes; CALL_BACKS=N for fewer)
	@$(BIN)/python tests/benchmarks/soak.py --call-backs $(or $(CALL_BACKS),1000000)

mutants: $(READY) ## Put faults into the code and say how many of them the tests find (some 30 minutes; MODULE=retry for one module)
	@$(BIN)/python tests/support/mutants.py $(MODULE)

structure: $(READY) ## Print figures about the structure of the package: cycles, names used twice, vague names (DETAILS=1 lists them)
	@$(BIN)/python tests/support/structure.py $(if $(DETAILS),--details)

lint: $(READY) ## Check style, types and layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Put the code into shape
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(READY) ## Build the documentation as a site, to be read from site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Built: open site/index.html"

bench: $(READY) ## Measure against the bare server and what else might be used, ratios in one run (needs wrk, redis-server and webhook; about 45 minutes)
	@$(BIN)/python tests/benchmarks/run.py

wheel: $(READY) ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation

sbom: $(READY) ## Write what the wheel is made of and asks for into dist/, as CycloneDX
	@$(BIN)/python tests/data/requirements/sbom.py dist

release: $(READY) ## Build all that a release consists of into dist/: wheel, source, SBOM, SHA256SUMS
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python tests/data/requirements/sbom.py dist
	@cd dist && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS . && sha256sum --check --quiet SHA256SUMS && ls -l

$(UPKEEP)/.ready: tests/data/requirements/upkeep.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv --clear $(UPKEEP)
	@$(UPKEEP)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $<
	@touch $@

lock: $(UPKEEP)/.ready ## Lock what pyproject.toml asks for into tests/data/requirements/; `make lock UPGRADE=1` with the newest of everything
	@$(UPKEEP)/bin/python tests/data/requirements/lock.py $(if $(UPGRADE),--upgrade)

audit: $(UPKEEP)/.ready ## Look for advisories on everything that is locked (asks a service on the network)
	@$(UPKEEP)/bin/python tests/data/requirements/audit.py

clean: ## Remove everything that these commands have made
	@rm -rf $(VENV) $(UPKEEP) build dist demo site mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
