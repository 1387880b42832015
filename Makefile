# Entry points for development. Everything is cached outside the repository, below $(LOGSTEAD_CACHE), by version.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

export LOGSTEAD_CACHE ?= $(HOME)/.cache/logstead
export ANSIBLE_SSH_CONTROL_PATH_DIR := $(LOGSTEAD_CACHE)/ssh/cp
export NO_COLOR := 1
export COLUMNS := 160

VENV := $(LOGSTEAD_CACHE)/venv-$(shell cat requirements/dev.txt requirements/system.txt tests/install_requirements.sh | sha256sum | cut -c1-16)
export PATH := $(VENV)/bin:$(PATH)
PYTHON_FILES := dashboards demo_app molecule playbooks plugins roles tests

.PHONY: help
help: ## Show this help
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | column -t -s '|'

# Marks that Debian's packages and the Python environment are installed for the current requirements.
$(VENV)/ready:
	@echo "Installing the development tools (once per change of the requirements)"
	tests/install_requirements.sh $(VENV)
	@touch $@

# The path at which editors and manage.sh expect the environment.
.PHONY: tools
tools: $(VENV)/ready
	@ln -sfn $(VENV) .venv

.PHONY: mirror
mirror: tools
	python tests/mirror/mirror.py fill --for tests

.PHONY: demo
demo: tools ## Boot a local host, install the platform on it, and verify that it works
	python tests/demo/demo.py

.PHONY: demo-clean
demo-clean: tools ## Remove everything that `make demo` created
	python tests/hosts/hosts.py down inventories/demo

.PHONY: lint
lint: tools ## Run all linters (under a minute)
	yamllint --strict .
	ruff check $(PYTHON_FILES)
	ruff format --check $(PYTHON_FILES)
	mypy $(patsubst plugins,collections/ansible_collections/logstead/platform/plugins,$(PYTHON_FILES))
	ansible-lint --offline

.PHONY: test-unit
test-unit: mirror ## Run the unit tests, which need no host (about a minute)
	pytest --numprocesses 2 demo_app/tests tests/unit

.PHONY: test
test: lint mirror ## Run the linters, the unit tests and every scenario on real hosts
	trap 'python tests/hosts/hosts.py down --all' EXIT; python tests/hosts/hosts.py down --all; \
	  pytest --numprocesses 3 --dist load --maxschedchunk 1 tests/scenarios demo_app/tests tests/unit

.PHONY: test-scenario
test-scenario: mirror ## Run one scenario: make test-scenario NAME=loki
	molecule test --scenario-name $(NAME)

.PHONY: test-faults
test-faults: mirror ## Run the fault table of docs/delivery.md with its full durations (about an hour)
	LOGSTEAD_FAULTS=full molecule test --scenario-name delivery

.PHONY: bench
bench: mirror ## Run all benchmarks or one: make bench NAME=delivery; see tests/bench/
	for name in $(or $(NAME),no_change delivery); do python tests/bench/$${name}_run.py || exit; done

.PHONY: vault-init
vault-init: ## Create an environment's vault with random secrets: make vault-init ENV=prod
	@python3 playbooks/vault_init.py "$(ENV)"

.PHONY: docs
docs: tools ## Regenerate the roles' READMEs and the tables of environments, formats and versions
	for role in roles/*/; do aar-doc $$role markdown; done
	python tests/docs/environments.py
	python tests/docs/formats.py
	python tests/docs/versions.py

.PHONY: versions
versions: tools ## Fail if a pinned release is past its end of support or vulnerable
	python tests/docs/versions.py check

.PHONY: dashboards
dashboards: tools ## Regenerate Grafana's dashboards from dashboards/
	python -m dashboards

.PHONY: lock
lock: tools ## Pin the latest versions of all Python packages
	for list in controller dev bench; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --upgrade requirements/$$list.in --output-file requirements/$$list.txt; done

.PHONY: clean
clean: ## Remove all test hosts and caches
	-python tests/hosts/hosts.py down --all --demo
	rm -rf $(LOGSTEAD_CACHE)
