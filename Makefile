# Each target sets up .venv first; all it needs is Python 3.11 to 3.13 and a package registry.
PYTHON ?= python3
BIN := .venv/bin
TEST_FLAGS ?=
# Tests run in this many processes, of one thread and about 2 GB each.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist worksteal
RESEARCH_FLAGS ?=
RECIPES_FLAGS ?=
BENCH_FLAGS ?=

.PHONY: demo test test-slow lint check configs research recipes bench reliability clean

demo: .venv/installed
	$(BIN)/python autoencoder.py -d digits -c configuration/autoencoder_small.json \
		--name demo --save models/demo.keras --overwrite
	$(BIN)/python classification.py -d digits -model models/demo.keras \
		-c configuration/classifier_small_small.json --name demo-classifier

# About an hour on 2 cores. Stop it at any time; the same command continues.
research: .venv/installed
	$(BIN)/python experiments.py run configuration/studies/research.json $(RESEARCH_FLAGS)

# What the recipes reach, beside the same without their parts and scikit-learn's methods. It continues
# the results in benchmarks/recipes-mnist/, also after a stop; without that folder it starts anew.
recipes: .venv/installed
	$(BIN)/python experiments.py label-efficiency -d mnist --counts 1 10 100 1000 all --seeds 5 \
		--runs-dir benchmarks $(RECIPES_FLAGS)

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PARALLEL) $(TEST_FLAGS)

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not long" $(TEST_FLAGS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint test

configs: .venv/installed
	$(BIN)/python make_configs.py

reliability: .venv/installed-dev
	$(BIN)/python tests/reliability.py

bench: .venv/installed-bench
	$(BIN)/python benchmarks/run.py $(BENCH_FLAGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: Python 3.11 to 3.13 is required, got $$($(PYTHON) --version 2>&1)." \
		"Choose another one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: a virtual environment is required." \
		"On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

.venv/installed: requirements.txt | .venv/bin/python
	@echo "Installing into .venv; this takes a minute or two."
	@$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/installed-bench: benchmarks/requirements.txt .venv/installed
	@$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "Installing what the tests need; this takes half a minute."
	@$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
