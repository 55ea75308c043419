# Everything runs in .venv, which any of the targets makes from the lock file.

PYTHON ?= python3
BIN = .venv/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home

.PHONY: demo dev test check lint format screenshots bench lock clean

demo: .venv/installed $(DAGSTER_HOME)/dagster.yaml  ## run the embedded demo gallery and print a summary
	@$(BIN)/python -m imgdl_pipeline demo

dev: .venv/installed $(DAGSTER_HOME)/dagster.yaml  ## open the web UI
	$(BIN)/dagster dev

test: .venv/installed  ## all tests
	$(BIN)/python -m pytest -n 4 --dist loadgroup

check: lint test  ## what CI runs

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

screenshots: .venv/installed  ## the README's pictures, from the tests that click through the UI
	$(BIN)/python -m pytest -q imgdl_pipeline_tests/test_ui.py
	cp build/screenshots/contact_sheet.png build/screenshots/checks.png docs/

bench: .venv/installed  ## against curl, aria2c, jpeginfo, img2dataset, Scrapy and the textbook's script; half an hour
	$(BIN)/python benchmarks/run.py

lock:  ## pin exact versions with hashes, for every Python we run on
	uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --no-strip-extras --upgrade --extra ui --group pyproject.toml:dev \
	  pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .dagster_home data build dist

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "imgdl_pipeline needs Python 3.10 to 3.13; name one, as in: make PYTHON=python3.12")'
	@echo setting up .venv, which takes a minute or two
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Dagster counts a pool it has not met before as one without a limit, so that it is told of ours beforehand.
$(DAGSTER_HOME)/dagster.yaml: | .venv/installed
	@mkdir -p $(DAGSTER_HOME)
	@cp dagster.example.yaml $@
	@$(BIN)/dagster instance concurrency set gallery_downloads 2 > /dev/null
