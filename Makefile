# All commands for development. Each creates the environment first if it does not exist.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough and can create environments; `make PYTHON=…` names another one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
PLUGINS := plugins/flowhooks-audit plugins/flowhooks-camunda plugins/flowhooks-contracts plugins/flowhooks-feishu plugins/flowhooks-flowable plugins/flowhooks-notice plugins/flowhooks-opentelemetry plugins/flowhooks-timings plugins/flowhooks-webhooks
READY := $(VENV)/.ready
# The tools that renew the lock and search for advisories have an environment of their own: tests do not need it.
UPKEEP := .upkeep
# Tests wait more than they compute, so two processes more than there are cores.
TEST_PROCESSES ?= $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores + 2)))
LINT = $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/python tests/support/prose.py
# pip uses one core, so two processes install half of the packages each. The lock names all dependencies.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes --only-binary :all: --requirement
# Tests start hundreds of processes: without compiled files each of them would compile flowhooks again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-cluster test test-browser test-engines test-long test-random soak mutants structure lint format docs bench wheel sbom release lock audit clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-13s %s\n' "$$name" "$$what"; done

$(READY): pyproject.toml tests/data/requirements/dev.txt $(PLUGINS:%=%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "flowhooks needs Python 3.11 or newer, with venv and pip; found none. Install it, or give its path: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version): about a minute, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@awk '/^[^ #]/ { part = (/^pip==/) ? "pip" : (++packages % 2) } part != "" { print > ("$(VENV)/lock-" part) }' tests/data/requirements/dev.txt
	@$(INSTALL) $(VENV)/lock-pip  # first, so that no process replaces the pip that another one runs
	@status=0; $(INSTALL) $(VENV)/lock-0 & first=$$!; $(INSTALL) $(VENV)/lock-1 || status=1; wait $$first || status=1; exit $$status
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib & compiling=$$!; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable %) || exit 1; \
	wait $$compiling || true  # templates in packages may not compile
	@touch $@

demo: $(READY) ## Show one callback, the work of its plugin and one error; stops by itself
	@$(BIN)/python tests/support/demo.py

demo-cluster: $(READY) ## Show many processes: PostgreSQL, two servers and three workers, one of which is killed
	@$(BIN)/python tests/support/demo_cluster.py

# The checks run beside the tests, because most of them use one core. In a fresh clone one process collects the tests
# first: pytest compiles them then, which each test process would do again.
test: $(READY) ## Run all checks, and all tests except those in a browser or with workflow engines, as continuous integration does
	@{ $(LINT); } & lint=$$!; status=0; \
	test -d .pytest_cache || $(BIN)/python -m pytest --collect-only -qq >/dev/null || true; \
	$(BIN)/python -m pytest -m "not java and not engine and not browser" --numprocesses $(TEST_PROCESSES) --dist worksteal || status=$$?; \
	wait $$lint || { echo "The checks have failed: their output is above. make lint repeats them."; status=1; }; exit $$status

test-browser: $(READY) ## Run the tests of the console in a real browser (needs Chromium), as continuous integration does
	@$(BIN)/python -m pytest -m browser --numprocesses $(TEST_PROCESSES) --dist worksteal

# One process: Maven builds once, and its downloads do not race.
test-engines: $(READY) ## Run the tests with real workflow engines (needs Java, Maven and npm), as continuous integration does
	@$(BIN)/python -m pytest -m "java or engine" tests/engines

test-long: $(READY) ## Run the tests that take minutes each, such as long outages, and print their figures
	@$(BIN)/python -m pytest -m long --timeout=600 --numprocesses $(TEST_PROCESSES) --dist worksteal --verbose -rP

test-random: $(READY) ## Run the property tests with new random inputs
	@$(BIN)/python -m pytest -m "hypothesis and not long" --hypothesis-profile=random --hypothesis-show-statistics --numprocesses $(TEST_PROCESSES) --dist worksteal --timeout=1800

soak: $(READY) ## Send a million callbacks of all kinds to one server; check memory and counts (about 20 minutes; CALL_BACKS=N for fewer)
	@$(BIN)/python tests/benchmarks/soak.py --call-backs $(or $(CALL_BACKS),1000000)

mutants: $(READY) ## Put faults into the code and count how many the tests find (about 30 minutes; MODULE=retry for one module)
	@$(BIN)/python tests/support/mutants.py $(MODULE)

structure: $(READY) ## Print figures about the package's structure: cycles, duplicate names, vague names (DETAILS=1 lists them)
	@$(BIN)/python tests/support/structure.py $(if $(DETAILS),--details)

lint: $(READY) ## Check style, types, layers and prose
	@$(LINT)

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(READY) ## Build the documentation as a site: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Built: open site/index.html"

bench: $(READY) ## Compare with a bare server and with alternatives (needs wrk, redis-server and webhook; about an hour; ROWS=a,b for some rows)
	@$(BIN)/python tests/benchmarks/run.py $(if $(ROWS),--rows $(ROWS))

wheel: $(READY) ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation

sbom: $(READY) ## Write the wheel's contents and dependencies into dist/, as CycloneDX
	@$(BIN)/python tests/data/requirements/sbom.py dist

release: $(READY) ## Build all files of a release into dist/: wheel, source, SBOM, SHA256SUMS
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python tests/data/requirements/sbom.py dist
	@cd dist && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS . && sha256sum --check --quiet SHA256SUMS && ls -l

$(UPKEEP)/.ready: tests/data/requirements/upkeep.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv --clear $(UPKEEP)
	@$(UPKEEP)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $<
	@touch $@

lock: $(UPKEEP)/.ready ## Lock the dependencies in tests/data/requirements/; `make lock UPGRADE=1` takes the newest versions
	@$(UPKEEP)/bin/python tests/data/requirements/lock.py $(if $(UPGRADE),--upgrade)

audit: $(UPKEEP)/.ready ## Search for advisories about all locked packages (asks a service on the network)
	@$(UPKEEP)/bin/python tests/data/requirements/audit.py

clean: ## Remove all files that these commands made
	@rm -rf $(VENV) $(UPKEEP) build dist demo site mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
