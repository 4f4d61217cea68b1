# Everything sets itself up: Python 3.11+ and make are enough.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Most tests wait more than they work. A file's tests stay together (some share a server), in their order: the
# longest files come first.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help run test check e2e browser screenshots scenarios soak bench lock clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "tsmon needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/.run ## watch the tailnet of this machine, or the demo tailnet when there is none
	@$(BIN)/tsmon run --or-demo

test: $(VENV)/.dev ## all tests that need no external server
	$(BIN)/pytest $(PARALLEL) -m "not server and not e2e and not browser"

check: $(VENV)/.dev ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

e2e: $(VENV)/.dev ## tests against real servers: socat, InfluxDB, Prometheus, tailscaled, headscale
	$(BIN)/pytest $(PARALLEL) -m "server or e2e"

browser: $(VENV)/.dev ## the dashboard in a real Chromium
	$(BIN)/pytest -m browser

screenshots: $(VENV)/.dev ## the pictures of the documents, anew (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

scenarios: $(VENV)/.dev ## what people are told in scripted outages: a table
	$(BIN)/python -m bench.scenarios

soak: $(VENV)/.dev ## 30 simulated days of 1,000 nodes (20 minutes)
	$(BIN)/python -m bench.soak --days 30

bench: $(VENV)/.dev ## benchmarks: tables and JSON (half an hour)
	$(BIN)/python -m bench
	$(BIN)/python -m bench.resident
	$(BIN)/python -m bench.routes
	$(BIN)/python -m bench.history
	$(BIN)/python -m bench.stream
	$(BIN)/python -m bench.influx

lock: $(VENV)/.dev ## make the hashed locks anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		--upgrade --extra notify pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		--upgrade --extra notify --group dev pyproject.toml -o requirements-dev.lock

clean: ## remove everything that was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
