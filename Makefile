# Python 3.11 or later is needed; all else is installed here: packages of Debian that are missing (python3-venv, npm for
# the benches, and what single tests need) where root may, and named where not.

# The first Python that is new enough.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
NODE := tests/clients/node
BENCH_NODE := bench/node
# How many tests run side by side; most of them wait rather than compute.
WORKERS ?= 4

# What single tests need beside the packages, as program:package. Where root can't install it, they are skipped aloud;
# with GATEWAY_TEST_ALL set they fail.
TEST_PROGRAMS := git:git gpg:gnupg ip:iproute2 nginx:nginx-light npm:npm ssh-keygen:openssh-client strace:strace \
	systemd-analyze:systemd

# The developer's own places of packages, and options of programs, are not those of what is installed here.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PYTHONHOME PYTHONPATH VIRTUAL_ENV NODE_OPTIONS NODE_PATH

# Each process of the tests would compile all that it imports, which is a third of a gateway's start.
unexport PYTHONDONTWRITEBYTECODE

# Other users run what is installed (the database, browsers), so they must be able to read it.
PIP := umask 022 && PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip
# $(call pinned,file with the pins): pip prints each package, with bars where somebody watches them grow.
pinned = echo "Installing the $$(grep -c '^[^ \#-].*==' $(1)) packages of $(1); this may take some minutes." && \
	bars=$$(test -t 1 || echo --progress-bar=off) && $(PIP) install $$bars --no-deps --requirement $(1)
CHECKOUT := echo 'Installing this checkout.' && $(PIP) install -qq --no-deps --no-build-isolation --editable .
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# A package of Debian that a command comes from: installed when root may, else named. $(call apt,package,what it is for)
apt = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(1)."; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
	else echo "$(2); on Debian: apt-get install $(1)" >&2; exit 1; fi

# Users without rights write their part of the coverage too.
MEASURED := rm -rf .measured && mkdir -m 1777 .measured && PYTHONPATH=$(CURDIR)/tests/support/measuring
JUDGED := { $(BIN)/coverage combine --quiet --data-file=.measured/coverage && \
	$(BIN)/coverage json --quiet --data-file=.measured/coverage -o .measured/coverage.json && \
	$(BIN)/python -m tools.coverage_gate .measured/coverage.json; }

.DELETE_ON_ERROR:
.PHONY: docs up agents test test-all test-unprivileged mutants lint lint-types lint-rest format lock bench smoke audit release clean test-programs test-requirements

# Options go into ARGS: make up ARGS="--port 9000"
up: .venv/installed
	@exec $(BIN)/gateway up $(ARGS)

PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

# All but those that are marked `thorough`: make test ARGS="-k lease"
test: test-requirements
	@$(PYTEST) -m "not thorough" $(ARGS)

# All of them, also races more often, and the branch coverage. About twice as long.
test-all: test-requirements
	@$(MEASURED) GATEWAY_TEST_RACES=80 GATEWAY_TEST_KILLS=10 $(PYTEST); status=$$?; $(JUDGED) || status=1; exit $$status

test-requirements: .venv/installed-dev test-programs
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory $(NODE)/node_modules/installed
	@$(BIN)/python -m gateway.agents.install $$(command -v npm >/dev/null || echo browser-use)
	@$(BIN)/python -m gateway.launchers.local.browsers

# What an ordinary user's gateway does otherwise than root's; root runs it as user `nobody`, who may keep nothing compiled
# in the checkout: so only files that have such tests are read.
test-unprivileged: .venv/installed-dev
	@$(BIN)/python -m gateway.launchers.local.browsers
	@$(BIN)/python -m tools.unprivileged $(BIN)/python -m pytest -m "unprivileged and not thorough" -p no:cacheprovider \
		--numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS) \
		$$(grep -rl --include='test_*.py' 'pytest.mark.unprivileged' tests)

# Stagehand and browser-use, from the locks in gateway/agents, into .venv-agents (or GATEWAY_AGENTS_DIR). One of them:
# make agents ARGS=browser-use
agents: .venv/installed
	@test "$(ARGS)" = browser-use || command -v npm >/dev/null || { $(call apt,npm,npm is needed); }
	@$(BIN)/python -m gateway.agents.install $(ARGS)

# Some minutes; what survived is listed at the end, and explained in tests/MUTANTS.md.
mutants: .venv/installed-dev
	@rm -rf mutants
	@$(BIN)/mutmut run --max-children $(WORKERS)
	@$(BIN)/mutmut results

# Side by side, each with its output in one piece.
lint: .venv/installed-dev
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target lint-types lint-rest

lint-types:
	@$(BIN)/mypy

lint-rest:
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/docker/*.yaml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# docs/settings.md from the options, docs/modules.md from the docstrings of modules, docs/execute.md from the calls.
docs: .venv/installed-dev
	@$(BIN)/python -m tools.settings_page
	@$(BIN)/python -m tools.modules_page
	@$(BIN)/python -m tools.execute_page

format: .venv/installed-dev
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet

bench: .venv/installed-dev $(BENCH_NODE)/node_modules/installed
	@$(BIN)/python -m gateway.launchers.local.browsers
	@$(BIN)/python -m bench.lifecycle
	@$(BIN)/python -m bench.api
	@$(BIN)/python -m bench.leaks
	@$(BIN)/python -m bench.capacity
	@$(BIN)/python -m bench.density
	@$(BIN)/python -m bench.egress
	@$(BIN)/python -m bench.tunnel
	@$(BIN)/python -m bench.revoke
	@$(BIN)/python -m bench.files
	@$(BIN)/python -m bench.record
	@$(BIN)/python -m bench.commands
	@$(BIN)/python -m bench.events
	@$(BIN)/python -m bench.live
	@$(BIN)/python -m bench.scale
	@$(BIN)/python -m bench.execute
	@$(BIN)/python -m bench.relay
	@$(BIN)/python -m bench.agents
	@$(BIN)/python -m bench.compare

# Keeps the versions that still fit; make lock ARGS=--upgrade takes the newest. The project itself is built by the
# setuptools of the lock, so that a build asks for nothing more.
lock: $(BIN)/pip
	@$(PIP) install -qq uv
	@echo 'setuptools>=80' | $(COMPILE) $(ARGS) pyproject.toml - --extra all --output-file requirements.txt >/dev/null
	@echo 'setuptools>=80' | $(COMPILE) $(ARGS) pyproject.toml - --extra all --extra dev --constraint requirements.txt \
		--output-file requirements-dev.txt >/dev/null
	@$(COMPILE) $(ARGS) --group tools --output-file requirements-tools.txt >/dev/null
	@$(COMPILE) $(ARGS) gateway/agents/browser_use/requirements.in \
		--output-file gateway/agents/browser_use/requirements.txt >/dev/null

# The wheel of this checkout, installed in a fresh environment with what is pinned, serves a lease.
smoke: .venv-tools/installed
	@.venv-tools/bin/python -m tools.smoke $(ARGS)

# Known vulnerabilities of what is pinned; what can't be looked up is a failure too.
audit: .venv-tools/installed
	@.venv-tools/bin/pip-audit -r requirements.txt --require-hashes --disable-pip --strict --progress-spinner=off

# make release VERSION=1.2.3; SIGN=no tags without a signature, AUDIT=no leaves the audit out.
release: .venv-tools/installed
	@test -n '$(VERSION)' || { echo 'Which version? make release VERSION=1.2.3' >&2; exit 2; }
	@.venv-tools/bin/python -m tools.release $(VERSION) \
		$(if $(filter no,$(SIGN)),--no-sign) $(if $(filter no,$(AUDIT)),--no-audit)

# Everything that was made here but data: that is in var/.
clean:
	rm -rf .venv .venv-agents .venv-tools .mypy_cache .pytest_cache .ruff_cache .hypothesis .measured mutants build dist *.egg-info
	rm -rf $(NODE)/node_modules $(BENCH_NODE)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.txt pyproject.toml setup.py | $(BIN)/pip
	@$(call pinned,requirements.txt)
	@$(CHECKOUT)
	@touch $@

.venv/installed-dev: requirements-dev.txt requirements.txt pyproject.toml setup.py | $(BIN)/pip
	@echo "Installing the $$(grep -c '^[^ \#-].*==' requirements-dev.txt) packages of requirements-dev.txt."
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m tools.packages requirements-dev.txt
	@$(CHECKOUT)
	@touch .venv/installed $@

.venv-tools/installed: requirements-tools.txt | $(BIN)/pip
	@echo 'Installing the packages of requirements-tools.txt.'
	@umask 022 && $(BIN)/python -m venv --clear .venv-tools
	@$(PIP) --python .venv-tools/bin/python install -qq --no-deps --requirement requirements-tools.txt
	@touch $@

$(BIN)/pip:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or later is needed; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call apt,python3-venv,$(PYTHON) cannot make virtual environments); }
	@echo "Making a virtual environment in .venv ($$($(PYTHON) --version))."
	@umask 022 && $(PYTHON) -m venv --clear .venv

# The Node.js of Playwright's driver, on which clients in tests run, needs a library that a minimal Debian lacks.
test-programs: | .venv/installed-dev
	@PATH="$$PATH:/usr/sbin:/sbin"; packages=; for each in $(TEST_PROGRAMS); do \
		command -v $${each%:*} >/dev/null || packages="$${packages:+$$packages }$${each#*:}"; done; \
	.venv/lib/python3*/site-packages/playwright/driver/node --version >/dev/null 2>&1 || \
		packages="$${packages:+$$packages }libatomic1"; \
	test -z "$$packages" || ( $(call apt,$$packages,Tests of missing programs are skipped) ) || \
		test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null

%/node_modules/installed: %/package.json %/package-lock.json
	@command -v npm >/dev/null || { $(call apt,npm,npm is needed); }
	@echo 'Installing the packages of $*/package-lock.json.'
	@cd $* && PUPPETEER_SKIP_DOWNLOAD=1 PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 \
		npm ci --loglevel=error --no-audit --no-fund >/dev/null
	@touch $@
