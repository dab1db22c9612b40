# Every target sets up what it needs, so each one works on a fresh clone.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PIP := PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

# Taken unexpanded and passed through the environment, so that names may hold spaces, quotes and dollar signs.
export POLYRES_SONG := $(value SONG)
export POLYRES_OUT := $(value OUT)

.DEFAULT_GOAL := help
.PHONY: help separate .song-is-given test test-slow docs lint format setup
.DELETE_ON_ERROR:

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

separate: .song-is-given $(VENV)/.runtime ## Split SONG=path into stems (OUT=folder, ARGS="more options")
	@$(BIN)/polyres separate "$$POLYRES_SONG" $${POLYRES_OUT:+--out "$$POLYRES_OUT"} $(ARGS)

.song-is-given:
	@if [ -z "$$POLYRES_SONG" ]; then echo 'error: no song given; write make separate SONG=path/to/song.mp3' >&2; exit 2; fi

# One process per processor, of one thread each: threads that wait for each other are slower.
test: lint ## Check style, types and imports, then run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(VENV)/.test ## Run the tests that take long
	@$(BIN)/python -m pytest -m slow $(ARGS)

docs: $(VENV)/.docs ## Build the documentation site in build/site, with its links checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open build/site/index.html"

lint: $(VENV)/.test ## Check style, types and imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.test ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

setup: $(VENV)/.test ## Set up .venv with everything for development

$(VENV)/.pip:
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
			if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then chosen=$$python; break; fi; \
		done; \
		if [ -z "$$chosen" ]; then \
			echo 'error: no Python 3.11-3.13 with venv found; install one (Debian, Ubuntu: apt-get install python3-venv)' \
				'or name one with make PYTHON=/path/to/python' >&2; \
			exit 2; \
		fi; \
		echo "Setting up $(VENV) with $$($$chosen --version)"; \
		"$$chosen" -m venv $(VENV); \
	fi
	@touch $@

# torch comes first and pinned: a build that is already there, for a GPU or without one, is kept.
$(VENV)/.torch: constraints.txt | $(VENV)/.pip
	@echo 'Installing $(TORCH) (once, may take minutes)'
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/.runtime: pyproject.toml constraints.txt $(VENV)/.torch
	@echo 'Installing polyres'
	@$(PIP) -e .
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt $(VENV)/.torch
	@echo 'Installing what builds the documentation'
	@$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.torch
	@echo 'Installing polyres with the tools for its tests'
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.runtime
