# Two commands do everything: `make study` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= kernel_ablation
PORT ?= 5000
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help study test lint types check controls ui audit clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 16

study: $(VENV)/.installed ## run a study: make study [STUDY=kernel_ablation] [SCALE=cifar]
	$(BIN)/python -m search.run --study $(STUDY) $(if $(SCALE),--scale $(SCALE))

test: $(VENV)/.installed-dev ## install what the tests need, and run them
	@$(MAKE) --no-print-directory programs
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy, strict
	$(BIN)/mypy

check: lint types test ## all of it

controls: $(VENV)/.installed ## can this machine and installation be trusted?
	$(BIN)/python -m search.controls

ui: $(VENV)/.installed ## browse the studies in MLflow, on loopback: make ui [PORT=5000]
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db --host 127.0.0.1 --port $(PORT) --workers 1

audit: $(VENV)/.installed-dev ## known vulnerabilities of what is installed; asks a service on the network
	$(INSTALL) --editable '.[audit]'
	@$(BIN)/python .ci/audit.py

clean: ## remove the virtual environment and caches, keep runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# The tests that need these skip themselves where they cannot be had (no Debian, no root).
.PHONY: programs
programs:
	-@export PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')"; \
	if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null || ! command -v initdb >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing chromium and postgresql for the tests"; \
			(apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver postgresql) \
				>/dev/null 2>&1 || echo "they could not be installed; some tests will be skipped"; \
		fi; \
	fi

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing (minutes, several GB, once)"
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@touch $@
