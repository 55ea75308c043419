# Everything runs in .venv, which any of the targets makes from the lock files. uv is used where it is installed.

PYTHON ?= python3
BIN = .venv/bin
UV := $(shell command -v uv 2> /dev/null)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(PIP))
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home

.PHONY: demo dev test check lint format docs screenshots bench sessions lock clean

demo: .venv/installed $(DAGSTER_HOME)/dagster.yaml  ## run the embedded demo gallery and print a summary
	@$(BIN)/imgdl run demo
	@echo look at it in the web UI: make dev

dev: .venv/installed $(DAGSTER_HOME)/dagster.yaml  ## open the web UI
	$(BIN)/dagster dev

test: .venv/tested  ## all tests
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(TEST_OPTIONS)

check: lint docs  ## linters, documentation, and all tests with the gate on coverage
	$(BIN)/python -m pytest -n 4 --dist loadgroup --cov --cov-report term

lint: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/tested
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/tested  ## the documentation, in build/site
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

screenshots: .venv/tested  ## the documentation's pictures, from the tests that click through the UI
	$(BIN)/python -m pytest -q imgdl_pipeline_tests/test_ui.py imgdl_pipeline_tests/test_view_ui.py
	for name in contact_sheet checks checks_of_a_broken_gallery asset_per_gallery near_duplicates view; do \
		cp build/screenshots/$$name.png docs/; done

bench: .venv/tested  ## against curl, aria2c, jpeginfo, img2dataset, Scrapy and the textbook's script; an hour
	$(BIN)/python benchmarks/run.py

sessions: .venv/tested  ## the tests with every Python that is here, and with the lowest versions that pyproject.toml allows
	PATH="$(subst $(eval) ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin)):$$PATH" $(BIN)/nox $(SESSIONS)

COMPILE = uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --no-strip-extras --upgrade --extra ui --extra postgres --extra datasets pyproject.toml

lock:  ## pin exact versions with hashes, for every Python we run on
	$(COMPILE) --group pyproject.toml:dev -o requirements-dev.lock
	$(COMPILE) --group pyproject.toml:build --constraint requirements-dev.lock -o requirements.lock

clean:
	rm -rf .venv .dagster_home .nox data build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 15) else "imgdl_pipeline needs Python 3.10 to 3.14; name one, as in: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo setting up .venv, which takes a minute or two
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venv/tested: requirements-dev.lock .venv/installed
	@echo adding what the tests need
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# Dagster counts a pool it has not met before as one without a limit, so the limit is set beforehand.
$(DAGSTER_HOME)/dagster.yaml: | .venv/installed
	@mkdir -p $(DAGSTER_HOME)
	@cp dagster.example.yaml $@
	@$(BIN)/dagster instance concurrency set gallery_downloads 2 > /dev/null
