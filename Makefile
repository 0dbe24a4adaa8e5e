# spfemu. `make` lists the targets. Needs Python 3.11+ with venv, a C compiler, Rust; installs the
# rest into .venv at the versions of requirements-dev.txt.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
CARGO  := cargo
# Warnings are errors in the checks, not in the build somebody makes with a newer compiler.
CLIPPY := $(CARGO) clippy --quiet --locked --workspace --all-targets -- -D warnings
# Not of the workspace, so that only `make bench` compiles what it depends on.
MODELS := --manifest-path benches/models/Cargo.toml
# What a rebuild of the extension module depends on.
RUST   := Cargo.toml Cargo.lock pyproject.toml .cargo/config.toml \
          $(shell find rust \( -name '*.rs' -o -path 'rust/core/machines/*.toml' \) -not -path 'rust/*/tests/*') $(wildcard rust/*/Cargo.toml)
BUILT  := $(VENV)/.built
DEPS   := $(VENV)/.installed

.PHONY: help build demo test lint test-rust test-python test-deep bench wheel fmt lock clean tools tools-test

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

build: $(BUILT) ## the package, release profile, editable in .venv

demo: $(BUILT) ## a recorded memcached and ebizzy, both handlers side by side; then a race is found
	$(PY) -m spfemu.cli.demo

test: tools-test lint test-rust test-python ## everything that has to hold before a commit

lint: tools-test $(BUILT) ## formatting, clippy, ruff, mypy --strict, the stub of spfemu._core
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check $(MODELS)
	$(CLIPPY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(PY) -m mypy.stubtest spfemu._core

test-rust: tools ## the Rust tests
	$(CARGO) test --quiet --locked --workspace

# Each worker begins with tests that stand together, which share their modules' fixtures, and takes
# others over when it has no more. Beyond a few the longest test is what one waits for.
test-python: $(BUILT) ## the Python tests, examples in docstrings and in the documentation included
	$(PY) -m pytest --quiet --numprocesses logical --maxprocesses 8 --dist worksteal

test-deep: tools-test $(BUILT) ## long exploration, 2,000 examples a property, and the checkers this machine has
	sh scripts/test_deep.sh $(PY)

bench: export SPFEMU_BENCH_TABLE := $(CURDIR)/target/bench.tsv
bench: $(BUILT) ## the benchmarks, release profile, on an idle machine; ends with a table of the bars
	@mkdir -p target && rm -f target/bench.tsv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benches/requirements.txt
	$(CARGO) bench --quiet --locked --workspace
	$(CARGO) run --quiet --locked --release --target-dir target/models $(MODELS)
	$(PY) -m pytest --quiet -c benches/pytest.toml benches
	$(PY) benches/table.py target/bench.tsv

wheel: tools $(DEPS) ## the wheel in dist/, proved in an empty environment without Rust
	rm -rf dist
	$(BIN)/maturin build --release --quiet --out dist
	sh scripts/prove_wheel.sh $(PY) dist/*.whl

fmt: $(DEPS) ## formats Rust and Python
	$(CARGO) fmt --all
	$(CARGO) fmt $(MODELS)
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

lock: $(DEPS) ## writes requirements-dev.txt anew from pyproject.toml, newest versions
	$(PY) -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command 'make lock' --group dev --all-extras pyproject.toml \
		--output-file requirements-dev.txt

clean: ## removes everything that was built, .venv included
	rm -rf $(VENV) target build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .benchmarks
	rm -f python/spfemu/_core*.so
	find python tests benches scripts -name __pycache__ -type d -prune -exec rm -rf {} +

tools:
	@sh scripts/check_tools.sh build >/dev/null

tools-test:
	@sh scripts/check_tools.sh test >/dev/null

$(DEPS): requirements-dev.txt scripts/check_tools.sh
	@python=$$(sh scripts/check_tools.sh build) || exit 1; \
	[ -x $(PY) ] || { echo "creating $(VENV)"; "$$python" -m venv $(VENV); }
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	@touch $@

# maturin is in .venv already, so no isolated build environment is needed. The profile is release.
$(BUILT): $(DEPS) $(RUST) | tools
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@
