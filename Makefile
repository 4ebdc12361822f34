# One command for each thing. Needs git, make and Python >= 3.11; on Debian and Ubuntu the rest is
# installed by apt when it is missing. Apart from that nothing outside this folder is written:
# packages go to .venv, everything else below var/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

# More arguments for pytest and the benchmarks, as in: make test ARGS='-k lease'
ARGS ?=

# How long each target is fuzzed, and which (ARGS), as in: make fuzz FUZZ_SECONDS=600 ARGS=request
FUZZ_SECONDS ?= 20

# Files of tests side by side: most of them wait for processes that start.
PARALLEL ?= --numprocesses=2 --dist=loadfile

# Exported only if given, so that tools/venv.sh can tell a choice from a search.
ifdef PYTHON
export PYTHON
endif

# Another project's modules must not come before those of the virtual environment.
unexport PYTHONPATH PYTHONHOME

# Caches and temporary files stay in the folder.
export TMPDIR := $(CURDIR)/var/tmp
export PIP_CACHE_DIR ?= $(CURDIR)/var/cache/pip
export UV_CACHE_DIR ?= $(CURDIR)/var/cache/uv
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/var/cache/hypothesis
export BUF_CACHE_DIR := $(CURDIR)/var/cache/buf
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore

# A virtual environment names its folder and its interpreter: it is made anew when the clone was
# moved (or is mounted elsewhere), or when the interpreter has gone.
stale = $(shell [ "$$(cat $1/.locked 2>/dev/null)" = "$$(pwd -P)" ] && $1/bin/python -c '' 2>/dev/null || echo always)

.PHONY: always
always:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

# ------------------------------------------------------------------------------------------ set-up

.PHONY: venv
venv: .venv/.stamp ## .venv with everything pinned, and this package in it

.venv/.locked: requirements/dev.lock $(call stale,.venv) | var/tmp
	@tools/venv.sh .venv requirements/dev.lock

# --no-build-isolation: the build backend comes from the lock file, not from the newest release.
.venv/.stamp: .venv/.locked pyproject.toml
	@.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv-bench/.locked: requirements/bench.lock $(call stale,.venv-bench) | var/tmp
	@tools/venv.sh .venv-bench requirements/bench.lock

.venv-bench/.stamp: .venv-bench/.locked pyproject.toml
	@.venv-bench/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv-proto/.locked: requirements/proto.lock $(call stale,.venv-proto) | var/tmp
	@tools/venv.sh .venv-proto requirements/proto.lock 3.14

# Whatever says why it cannot be had has been said by then.
.venv-fuzz/.locked: requirements/fuzz.lock $(call stale,.venv-fuzz) | var/tmp
	@tools/venv.sh .venv-fuzz requirements/fuzz.lock 3.15 || { \
		echo 'keycustody: make fuzz needs atheris, which has wheels for Python 3.11 to 3.14 on Linux' \
			'x86-64 alone. make test replays the seeds without it.' >&2; exit 1; }

var/tmp:
	@mkdir -p $@

.PHONY: softhsm
softhsm: ## SoftHSM2, installed if need be, with a folder for tokens in var/softhsm
	@softhsm/setup.sh var/softhsm

.PHONY: programs
programs:
	@softhsm/install.sh
	@command -v openssl >/dev/null || tools/apt-install.sh 'The openssl command' openssl

# For the module that fails on demand (tests/faults/shim.c), and the token that can be unplugged.
.PHONY: test-programs
test-programs: programs
	@command -v cc >/dev/null || tools/apt-install.sh 'A C compiler (cc)' gcc libc6-dev
	@command -v p11-kit >/dev/null || tools/apt-install.sh 'p11-kit' p11-kit p11-kit-modules

# Kills processes at chosen system calls. Without it those tests are skipped, and say so.
.PHONY: strace
strace:
	@command -v strace >/dev/null || tools/apt-install.sh 'strace, for some tests' strace || :

# --------------------------------------------------------------------------------------------- use

.PHONY: demo
demo: venv softhsm programs ## everything once, on SoftHSM
	@bash examples/demo.sh

.PHONY: drill
drill: venv softhsm programs ## lose a machine and not its data, on SoftHSM (docs/backup.md)
	@bash examples/drill.sh

.PHONY: bench
bench: .venv-bench/.stamp test-programs ## the benchmarks, 15 minutes, or 2 with QUICK=1 (ARGS)
	@.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

# -------------------------------------------------------------------------------------------- tests

.PHONY: test
test: venv test-programs strace ## the whole test suite (ARGS)
	.venv/bin/pytest $(PARALLEL) $(ARGS)

.PHONY: test-quick
test-quick: venv test-programs strace ## without the slow tests (ARGS)
	.venv/bin/pytest -m 'not slow' $(PARALLEL) $(ARGS)

.PHONY: soak
soak: SECONDS ?= 60
soak: venv test-programs ## everything at once, with faults, for SECONDS (60); var/soak has a plot
	@.venv/bin/python -m tests.soak $(SECONDS) $(ARGS)

.PHONY: fuzz
fuzz: .venv-fuzz/.locked ## coverage-guided fuzzing, FUZZ_SECONDS (20) for each target (ARGS)
	@PYTHONPATH=agent .venv-fuzz/bin/python -m tests.fuzz $(FUZZ_SECONDS) $(ARGS)

# Apart, so that make -k (as in .ci/run) shows what each of them has to say.
.PHONY: lint lint-format lint-code lint-types lint-imports lint-proto
lint: lint-format lint-code lint-types lint-imports lint-proto ## ruff, mypy --strict, import contracts, buf
lint-format: venv
	.venv/bin/ruff format --check .
lint-code: venv
	.venv/bin/ruff check .
lint-types: venv
	.venv/bin/mypy --strict
lint-imports: venv
	.venv/bin/lint-imports --no-logo --cache-dir var/cache/import-linter
lint-proto: venv
	.venv/bin/buf lint

.PHONY: format
format: venv ## format the code, sort imports, apply the safe fixes
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

# ------------------------------------------------------------------------------------ generated files

.PHONY: proto
proto: .venv-proto/.locked ## the stubs in agent/keycustody/v1, from proto/
	tools/proto.sh agent

.PHONY: proto-check
proto-check: .venv-proto/.locked ## are the stubs what proto/ gives?
	@rm -rf var/proto-check
	@tools/proto.sh var/proto-check
	@diff -r -x __pycache__ agent/keycustody/v1 var/proto-check/keycustody/v1 || \
		{ echo 'The stubs are stale: run make proto.' >&2; exit 1; }

# Pins that still fit are kept; make lock ARGS=--upgrade renews them.
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes $(ARGS)

.PHONY: lock
lock: venv ## the lock files in requirements/, for what pyproject.toml asks (ARGS=--upgrade)
	$(COMPILE) --extra dev -o requirements/dev.lock pyproject.toml
	$(COMPILE) -c requirements/dev.lock -o requirements/client.lock pyproject.toml
	$(COMPILE) -o requirements/proto.lock requirements/proto.in
	$(COMPILE) -c requirements/dev.lock --extra agent --emit-build-options \
		-o requirements/fuzz.lock pyproject.toml requirements/fuzz.in
	$(COMPILE) -c requirements/dev.lock --extra dev -o requirements/bench.lock pyproject.toml requirements/bench.in

.PHONY: clean
clean: ## remove all that make has made, the tokens in var/ included
	rm -rf .venv .venv-bench .venv-fuzz .venv-proto var/* dist build .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
