# Everything that is done with this repository. `make` alone says what there is; `make all` is what CI runs.
# A machine needs Rust, CPython >= 3.11, a C linker and make; the rest is put into $(VENV), at the versions in requirements/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# True in a CPython that will do. A name on PATH proves nothing: a version manager may have put a shim there.
IS_CPYTHON := import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info < (3, 11))

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.1{1..9} python; do \
	"$$python" -c '$(IS_CPYTHON)' 2>/dev/null && { echo "$$python"; break; }; done)
endif
VENV ?= .venv
# `make build LOCKED=` lets cargo bring Cargo.lock up to date after a change of dependencies.
LOCKED ?= --locked
# `make build PROFILE=profiling` keeps the symbols.
PROFILE ?= release
export CARGO_TARGET_DIR ?= target

BIN := $(abspath $(VENV))/bin
RUN := $(BIN)/python
# Where other projects' tests are run on headrace.
INDEPENDENT ?= .venvs/independent
# Where the tests on Ray are run.
RAY_VENV ?= .venv-ray
# Which requirements file `setup` installs.
TOOLS ?= dev
READY := $(VENV)/.ready-$(TOOLS)

# The models need optimised code to be quick, and assertions to be worth running.
LOOM := RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom CARGO_PROFILE_RELEASE_LTO=off \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true

# Anything that memcheck finds fails the test it is found in; so does memory to which nothing points any more.
MEMCHECK := valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
	--errors-for-leak-kinds=definite,indirect --num-callers=25 --fair-sched=yes
# Left out are those that simulate hours, and those that measure time or memory: valgrind changes what they measure.
MEMCHECKED := --lib $(addprefix --test ,auto_traits buffer buffer_ends buffer_model buffer_modes capacity capacity_deadlock capacity_life \
	capacity_model capacity_quota capacity_race capacity_settle capacity_time signal tokio wait_list)

# Fails, and says why, unless everything public has a type that all checkers agree on. The checker looks the package up
# in the environment of the first python on PATH.
TYPED = told=$$(PATH="$(BIN):$$PATH" $(BIN)/basedpyright --verifytypes headrace --ignoreexternal) || \
	{ grep -B 1 -A 1 error: <<<"$$told" >&2; exit 1; }

# Prints "KEY PATH", one line for each CPython >= 3.11 on PATH and under pyenv, the first of each kind (3.11, 3.13, 3.13t, ...).
FIND_PYTHONS = for python in python3 $$(compgen -c python3. | grep -xE 'python3\.[0-9]+t?' | sort -u) \
		"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3; do \
	"$$python" -c '$(IS_CPYTHON)' 2>/dev/null || continue; \
	"$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags, sys.executable)'; \
	done | sort -V -u -k1,1

.PHONY: help
help: ## say what there is
	@echo "usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [CARGO_TARGET_DIR=target]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(READY) ## make the virtual environment and put the pinned tools into it

$(VENV)/.ready-%: requirements/%.txt requirements/build.txt requirements/test.txt requirements/sdks.txt requirements/examples.txt requirements/docs.txt \
		requirements/constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "no CPython >= 3.11 on PATH; name one with PYTHON=" >&2; exit 1; }
	"$(PYTHON)" -c '$(IS_CPYTHON)' || { echo "$(PYTHON) is not a CPython >= 3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.PHONY: build
build: $(READY) ## build the extension in release and install the package, editable
	@# A process that has the extension mapped dies if it is overwritten in place. maturin removes the old file and then
	@# writes the new one, so that such a process keeps the old one. To be certain of that, the old files get second names.
	mkdir -p build/replaced
	rm -f build/replaced/*
	ln python/headrace/_core.*.so build/replaced/ 2>/dev/null || true
	touch build/replaced/begun
	env -u CONDA_PREFIX VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --profile $(PROFILE) $(LOCKED) --quiet
	@for file in python/headrace/_core.*.so; do \
		[ ! "$$file" -ef "build/replaced/$${file##*/}" ] || [ ! "$$file" -nt build/replaced/begun ] || \
			{ echo "$$file was overwritten in place" >&2; exit 1; }; \
	done
	rm -rf build/replaced

.PHONY: test
test: test-core loom test-python ## every test: the core's, its loom models, the Python ones

.PHONY: test-core
test-core: ## the core's tests; ARGS= goes to cargo
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --package headrace-core $(LOCKED) $(ARGS); \
		cargo test --package headrace-core $(LOCKED) --doc $(ARGS); \
	else \
		cargo test --package headrace-core $(LOCKED) $(ARGS); \
	fi

.PHONY: loom
loom: ## the core's models: every interleaving, or as many as loom is told to try
	$(LOOM) cargo test --package headrace-core $(LOCKED) --release --lib --tests $(ARGS)

.PHONY: test-python
test-python: build ## the Python tests, as many files at once as there are processors, or JOBS=; ARGS= goes to pytest
	$(RUN) -m pytest --numprocesses $(or $(JOBS),auto) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-all
test-all: ## the Python tests on every CPython >= 3.11 of this machine
	found=$$($(FIND_PYTHONS)); \
	[ -n "$$found" ] || { echo "no CPython >= 3.11 found" >&2; exit 1; }; \
	failed=; \
	while read -r key python; do \
		echo "== CPython $$key: $$python"; \
		$(MAKE) test-python TOOLS=test PYTHON="$$python" VENV=.venvs/$$key CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/py$$key \
			</dev/null || failed+=" $$key"; \
	done <<<"$$found"; \
	[ -z "$$failed" ] || { echo "failed on CPython$$failed" >&2; exit 1; }

.PHONY: test-independent
test-independent: ## the tests of janus, culsans and anyio on headrace, out of their source distributions: needs the network
	$(MAKE) build TOOLS=independent VENV=$(INDEPENDENT)
	$(INDEPENDENT)/bin/python tests/independent/run.py build/independent

.PHONY: test-ray
test-ray: ## the tests on Ray, in namespaces of their own without a network, in five minutes; ARGS= goes to pytest
	@# Ray advertises the address of the machine to whoever reaches it, and leaves processes behind. Here it has the loopback
	@# interface only, and what is left ends with the namespace.
	@namespaces="unshare --net --pid --fork --kill-child --mount-proc"; \
	[ "$$(id -u)" = 0 ] || namespaces+=" --map-root-user"; \
	if ! $$namespaces ip link set lo up 2>/dev/null; then \
		echo "skipped: the tests on Ray need Linux, unshare, ip and the permission to make namespaces"; \
		exit 0; \
	fi; \
	$(MAKE) build TOOLS=ray VENV=$(RAY_VENV); \
	directory=$$(mktemp -d /tmp/headrace-ray-XXXXXX); \
	trap 'rm -rf "$$directory"' EXIT; \
	RAY_TMPDIR=$$directory RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 timeout --kill-after 5 $(or $(SECONDS),500) \
		$$namespaces bash -c 'ip link set lo up; "$$@"; exit $$?' - \
		$(RAY_VENV)/bin/python -m pytest tests/test_ray_*.py -q $(ARGS)

.PHONY: test-debug
test-debug: build ## the Python tests with CPython's and asyncio's checks, which takes long; ARGS= goes to pytest
	PYTHONMALLOC=debug PYTHONASYNCIODEBUG=1 $(RUN) -X dev -m pytest --timeout 600 -o faulthandler_timeout=1200 $(ARGS)

.PHONY: test-valgrind
test-valgrind: ## the core's tests that are quick enough, under valgrind memcheck: bad reads and leaks; CASES= (32) of each model
	PROPTEST_CASES=$(or $(CASES),32) cargo test --package headrace-core $(LOCKED) --no-fail-fast \
		--config "target.'cfg(unix)'.runner = '$(MEMCHECK)'" $(MEMCHECKED) -- --skip two_hundred_a_second $(ARGS)

.PHONY: soak
soak: build ## 130 minutes of a processor: all at once, then random programs, each for SECONDS= (600); then a million items through buffers and pools, RUNS= times (20); a million records of each format through the command; 150 kills of a command with a journal; pools under each pair of options; 100,000 waiters cancelled at their grants; then CASES= (200000) of each of the five themes of the tree's model
	HEADRACE_SOAK_SECONDS=$(or $(SECONDS),600) $(RUN) -m pytest tests/test_soak.py -q -o faulthandler_timeout=0 $(ARGS)
	HEADRACE_FUZZ_SECONDS=$(or $(SECONDS),600) $(RUN) -m pytest tests/test_fuzz.py -q -rP -o faulthandler_timeout=0 $(ARGS)
	for run in $$(seq $(or $(RUNS),20)); do \
		echo "== run $$run"; \
		HEADRACE_SOAK=10 $(RUN) -m pytest tests/test_buffer_soak.py tests/test_pool_soak.py -q -o faulthandler_timeout=0 $(ARGS); \
	done
	HEADRACE_ROWS=1000000 $(RUN) -m pytest tests/test_cli_formats.py -k memory -q --timeout 1200 -o faulthandler_timeout=0 $(ARGS)
	HEADRACE_SOAK=10 $(RUN) -m pytest tests/test_cli_journal_kills.py -q -rP -o faulthandler_timeout=0 $(ARGS)
	HEADRACE_SOAK=100 $(RUN) -m pytest tests/test_pool_pairs.py -k interrupted -q -o faulthandler_timeout=0 $(ARGS)
	HEADRACE_ROUNDS=100000 $(RUN) -m pytest tests/test_capacity_loops.py -k cancellation_races_with_its_grant -q -o faulthandler_timeout=0 $(ARGS)
	PROPTEST_CASES=$(or $(CASES),200000) cargo test --package headrace-core $(LOCKED) --test capacity_model

.PHONY: lint
lint: build ## formatters, linters, plain English, layers of the package, type checkers, stubs against the module, licences
	cargo fmt --all --check
	PYO3_PYTHON=$(RUN) cargo clippy --workspace --all-targets $(LOCKED) -- -D warnings
	$(LOOM) cargo clippy --package headrace-core --all-targets $(LOCKED) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --package headrace-core --no-deps $(LOCKED) --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(RUN) tools/plain_english.py
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(TYPED)
	MYPYPATH=python $(RUN) -m mypy.stubtest headrace._core
	if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed: deny.toml was not checked"; fi

.PHONY: format
format: $(READY) ## let the formatters rewrite what they would complain about
	cargo fmt --all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: demo
demo: ## the main job: a census of the standard library, into build/census.jsonl; puts nothing but what builds into the environment
	$(MAKE) build TOOLS=build
	mkdir -p build
	$(RUN) examples/stdlib_census.py --output build/census.jsonl

.PHONY: bench
bench: ## headrace beside code by hand, its peers and the floors, into benches/results/ and the tables; ARGS=--quick for a look
	key=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)'); \
	venv=.venvs/peers-$$key; \
	$(MAKE) build TOOLS=test VENV=$$venv CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/py$$key; \
	$$venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/peers.txt \
		|| echo "not all peers could be installed: what is not there is shown as absent" >&2; \
	$$venv/bin/python benches/python/bench.py $(ARGS); \
	$$venv/bin/python benches/python/tables.py

.PHONY: push-back
push-back: build ## the command against a local model service that limits, fails and hangs, in eight minutes; ARGS= goes to the program
	PYTHONPATH=. $(RUN) benches/python/push_back.py $(ARGS)

.PHONY: instructions
instructions: build ## instructions of chosen benchmark rows under valgrind, against those that are kept; ARGS=--keep keeps them
	$(RUN) benches/python/instructions.py $(ARGS)

.PHONY: wheels
wheels: $(READY) ## a wheel for each CPython >= 3.11 of this machine into dist/, each tried in an empty environment
	rm -f dist/headrace-*.whl
	found=$$($(FIND_PYTHONS)); \
	[ -n "$$found" ] || { echo "no CPython >= 3.11 found" >&2; exit 1; }; \
	while read -r key python; do \
		echo "== CPython $$key: $$python"; \
		env -u CONDA_PREFIX CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/py$$key $(BIN)/maturin build --release $(LOCKED) --quiet \
			--interpreter "$$python" --out dist; \
		HEADRACE_WHEELS=$(abspath dist) HEADRACE_PYTHON="$$python" $(RUN) -m pytest tests/test_wheel.py -q -rP </dev/null; \
	done <<<"$$found"; \
	ls -l dist/headrace-*.whl

.PHONY: docs
docs: build ## build the site into build/site; write the tables and pictures of the operators anew
	$(RUN) docs/operators.py
	$(RUN) docs/pictures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the site is in build/site; open file://$(CURDIR)/build/site/index.html, or run make docs-serve"

.PHONY: docs-serve
docs-serve: build ## serve the site on http://127.0.0.1:8000/ and build it again after each change of a page; ARGS= goes to mkdocs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve $(ARGS)

.PHONY: all
all: ## what CI runs: test, lint, instructions, docs, demo
	$(MAKE) test
	$(MAKE) test-ray
	$(MAKE) lint
	$(MAKE) instructions
	$(MAKE) docs
	$(MAKE) demo

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf $(CARGO_TARGET_DIR) build dist $(VENV) $(RAY_VENV) .venvs .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests examples -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/headrace/*.so
