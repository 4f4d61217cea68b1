# Everything sets itself up: Python 3.11+ and make are enough.
#
# Each Python from 3.11 on that runs and can make a venv: those on PATH, then pyenv's; newest first.
VERSIONS := 3.14 3.13 3.12 3.11
PYTHONS = $(shell \
	for p in $(VERSIONS:%=python%) python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3; do \
		"$$p" -c 'import ensurepip, sys, venv; v = sys.version_info[:2]; v < (3, 11) or print("%d.%d" % v, sys.executable)'; \
	done 2>/dev/null | sort -u -k1,1 -t' ' | sort -r -V | cut -d' ' -f2-)
PYTHON ?= $(firstword $(PYTHONS))
VENV ?= .venv
BIN := $(VENV)/bin
# The locks are complete and name every file by its hash, those that build tsmon included: nothing is resolved here.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation
# Most tests wait more than they work. A file's tests stay together (some share a server), in their order: the
# longest files come first.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
HERE := not server and not e2e and not browser and not deploy
# One for every supported Python and system; the three agree on each version.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-header --no-annotate
# The tests start the program hundreds of times: what is compiled is kept, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE
SCRIPTS = $(shell find .ci docker tests -type f -exec grep -lE '^\#!.*[/ ](ba|da)?sh( |$$)' {} +)

.PHONY: help run test slow check audit wheel e2e e2e-deploy browser nightly screenshots scenarios soak bench setups deb release lock clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: pyproject.toml requirements-build.lock requirements.lock
	@test -n "$(PYTHON)" || { echo "tsmon needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements-build.lock
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/.run ## watch the tailnet of this machine, or the demo tailnet when there is none
	@$(BIN)/tsmon run --or-demo

test: $(VENV)/.dev ## the tests that need no external server (two minutes)
	$(BIN)/pytest $(PARALLEL) -m "not slow and $(HERE)"

slow: $(VENV)/.dev ## those that take longer: faults, kills, days in virtual time, mutated documents
	$(BIN)/pytest $(PARALLEL) -m "slow and $(HERE)"

# tests/docs reads the sources: it is left to the checkout.
wheel: ## the tests against the built wheel, the checkout's tsmon/ out of the way (ARGS: pytest's)
	@$(MAKE) --no-print-directory VENV=build/venv build/venv/.dev
	rm -rf dist build/tree
	build/venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	build/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	mkdir build/tree
	cp -R $(filter-out tsmon,$(shell git ls-files | cut -d/ -f1 | sort -u)) build/tree
	cd build/tree && ../venv/bin/python -c 'import tsmon; assert "site-packages" in tsmon.__file__, tsmon.__file__'
	cd build/tree && TSMON_TEST_CHECKOUT=$(CURDIR) ../venv/bin/pytest $(PARALLEL) --ignore=tests/docs $(ARGS)

check: $(VENV)/.dev ## everything that judges the code: ruff, mypy, imports, locks, biome, shellcheck, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.support.locks
	$(BIN)/biome check --error-on-warnings tsmon/web
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/hadolint Dockerfile docker/*Dockerfile

audit: $(VENV)/.dev ## known vulnerabilities of what the locks name (asks the package index)
	.ci/audit

e2e: $(VENV)/.dev ## tests against real servers: socat, InfluxDB, Prometheus, tailscaled, headscale
	$(BIN)/pytest $(PARALLEL) -m "server or e2e"

e2e-deploy: $(VENV)/.dev ## the shipped artefacts in real engines: systemd, dockerd (root; some ten minutes)
	TSMON_TEST_DEPLOY=1 $(BIN)/pytest -m deploy

browser: $(VENV)/.dev ## the dashboard in a real Chromium
	$(BIN)/pytest -m browser

nightly: $(VENV)/.dev ## the long ones, longer: 1,000 kills, a million documents, 30 days, 300 examples (hours)
	TSMON_TEST_KILLS=1000 TSMON_TEST_DOCUMENTS=1000000 TSMON_TEST_SOAK_DAYS=30 TSMON_TEST_EXAMPLES=300 \
		$(BIN)/pytest $(PARALLEL) -m "$(HERE)"

screenshots: $(VENV)/.dev ## the pictures of the documents (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

scenarios: $(VENV)/.dev ## what people are told in scripted outages: a table
	$(BIN)/python -m bench.scenarios

soak: $(VENV)/.dev ## 30 simulated days of 1,000 nodes (an hour)
	$(BIN)/python -m bench.soak --days 30

bench: $(VENV)/.dev ## benchmarks: tables and JSON (half an hour)
	$(BIN)/python -m bench
	$(BIN)/python -m bench.resident
	$(BIN)/python -m bench.routes
	$(BIN)/python -m bench.history
	$(BIN)/python -m bench.stream
	$(BIN)/python -m bench.influx
	$(BIN)/python -m bench.services

setups: ## a set-up with each Python of this machine, with its own pip and with the newest
	@MAKE='$(MAKE)' .ci/setups $(PYTHONS)

deb: $(VENV)/.dev ## the Debian package, in dist/
	$(BIN)/python packaging/release.py --deb

release: $(VENV)/.dev ## everything a release consists of, twice, checked: dist/ (RELEASING.md)
	$(BIN)/python packaging/release.py

lock: $(VENV)/.dev ## write the locks after a change of the dependencies (UPGRADE=--upgrade: the newest of everything)
	$(COMPILE) $(UPGRADE) --extra mcp --extra notify --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --upgrade --constraint requirements-dev.lock --extra notify pyproject.toml -o requirements.lock
	$(COMPILE) --upgrade --constraint requirements-dev.lock --group build -o requirements-build.lock
	$(BIN)/python -m tests.support.locks

clean: ## remove everything that was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
