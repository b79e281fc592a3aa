# The commands of this project. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: setup
setup: $(VENV)/.ready ## Install what tests and `pacs dev` need: Debian packages (says which) and .venv
	@requirements/ensure-debian requirements/debian-test.txt

$(VENV)/.ready: requirements/development.txt requirements/debian-test.txt pyproject.toml
	@requirements/ensure-debian requirements/debian-test.txt
	@echo "setup: Python packages of requirements/development.txt into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements/development.txt
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lint
lint: setup ## Every linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo | tail -n 3
	@$(BIN)/yamllint --strict .
	@$(BIN)/ansible-lint --offline -q
	@git ls-files -z -- '*.sh' .ci/run requirements/ensure-debian | xargs -0 shellcheck
	@$(BIN)/python -m packer.validate

.PHONY: test
test: lint ## Linters, unit, integration and fault tests
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m 'not long'

.PHONY: appliance
appliance: setup ## Build OVA, qcow2, VHDX, Vagrant box, upgrade file and list of parts into dist/
	@requirements/ensure-debian requirements/debian-appliance.txt
	@$(BIN)/python -m packer.build

.PHONY: test-appliance
test-appliance: setup ## Boot the built OVA in QEMU and test it (builds it if dist/ has none)
	@requirements/ensure-debian requirements/debian-appliance.txt requirements/debian-test-appliance.txt
	@ls dist/*.ova >/dev/null 2>&1 || $(MAKE) appliance
	$(BIN)/pytest -m 'not long' tests/image

.PHONY: test-recovery
test-recovery: setup ## Disaster recovery, upgrade and roll-back with the built OVA in QEMU; prints minutes
	@requirements/ensure-debian requirements/debian-appliance.txt requirements/debian-test-appliance.txt
	@ls dist/*.ova >/dev/null 2>&1 || $(MAKE) appliance
	$(BIN)/pytest -s -m 'long or not long' --timeout 7200 tests/image/test_backup.py tests/image/test_upgrade.py \
	  tests/image/test_system_disk.py

.PHONY: test-long
test-long: setup ## The soaks, the whole matrices and the big numbers
	@requirements/ensure-debian requirements/debian-test-long.txt requirements/debian-appliance.txt \
	  requirements/debian-test-appliance.txt requirements/debian-vagrant.txt
	$(BIN)/pytest -m long --timeout 7200 tests/unit tests/ovf tests/integration tests/faults tests/roles tests/image

.PHONY: bench
bench: setup ## Measure beside Orthanc and storescp in one run; writes docs/reference/performance.md (root, 15 minutes)
	@requirements/ensure-debian requirements/debian-bench.txt
	$(BIN)/python -m tests.bench --write docs/reference/performance.md

.PHONY: bench-storage
bench-storage: setup ## Move, scrub and rebuild a million objects beside cp and sha256sum (root, 20 minutes, 20 GB)
	$(BIN)/python -m tests.bench.storage --write docs/reference/performance.md

.PHONY: bench-backup
bench-backup: setup ## Back up and restore 100,000 objects beside cp and restic (root, 5 minutes, 6 GB)
	$(BIN)/python -m tests.bench.backup --write docs/reference/performance.md

.PHONY: reference
reference: setup ## Write docs/reference from the code
	@$(BIN)/python -c "from pathlib import Path; from pacs.settings import reference; p = Path('docs/reference/settings.md'); t = p.read_text(); p.write_text(t[:t.index('| setting')] + reference())"
	@$(BIN)/python -c "from pathlib import Path; from pacs.storage.opening import reference; p = Path('docs/reference/volumes.md'); t = p.read_text(); p.write_text(t[:t.index('| |')] + reference())"
	@$(BIN)/python -c "from pathlib import Path; from pacs.checks.reference import table; p = Path('docs/reference/checks.md'); t = p.read_text(); p.write_text(t[:t.index('| check')] + table())"
	@$(BIN)/python -c "from pathlib import Path; from pacs.machine.machine_settings import reference; p = Path('docs/reference/machine-settings.md'); t = p.read_text(); p.write_text(t[:t.index('| setting')] + reference())"
	@$(BIN)/python -c "from pathlib import Path; from packer.compare import reference; p = Path('docs/reference/reproducible.md'); t = p.read_text(); p.write_text(t[:t.index('| path')] + reference())"
	@$(BIN)/python -c "from pathlib import Path; from pacs.net.conformance import statement; from pacs.settings import Settings; from pacs.web.conformance import sections; s = Settings(data=Path('/srv/pacs/state')); Path('docs/reference/conformance.md').write_text(statement(s, sections(s)))"

.PHONY: lock
lock: ## Renew the hash-locked requirements from their .in files
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade requirements/development.in -o requirements/development.txt
	$(BIN)/uv pip compile -q --python-version 3.13 --python-platform x86_64-unknown-linux-gnu --generate-hashes --upgrade requirements/service.in -o requirements/service.txt

.PHONY: clean
clean: ## Remove what builds made (not dist/, not the cache)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
