# Every target runs from a fresh clone: it makes its own virtual environment and builds what it needs.
#   make test PYTHON=python3.12      another interpreter: its environment and modules lie beside the others
#   make stress ARGS="migrate --threads 64 --seconds 10"

PYTHON ?= python3
ARGS ?=
EXTRAS ?= plot browser greenlet examples zstandard
TAG := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
VENV := .venv/$(TAG)
PY := $(CURDIR)/$(VENV)/bin/python
SPACE := $() $()
READY := $(VENV)/ready-$(subst $(SPACE),-,$(strip $(EXTRAS)))

.DEFAULT_GOAL := help
.PHONY: help build test stress bench lint plot interrupt traps explore mutants proof numbers tsan asan swapped debug docs examples dist clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 12

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-compile --upgrade pip
	$(PY) -m pip install --quiet --no-compile --group dev
	@for group in $(EXTRAS); do $(PY) -m pip install --quiet --no-compile --only-binary :all: --group $$group || \
		echo "what is for $$group cannot be had for $(TAG): it is left out there"; done
	touch $@

build: $(READY)  ## compile in place, with the stress suite's own modules
	DEFERPOOL_DEV=1 $(PY) setup.py --quiet build_ext --inplace --parallel 4

test: build  ## the tests, on all cores, neighbours on one, so that what they share is made without others waiting
	$(PY) -m pytest -n auto --dist worksteal $(ARGS)

stress: build  ## the main job: real threads, every scenario, both modes; one table
	$(PY) -m stress $(ARGS)

bench: build  ## beside glibc, mimalloc, jemalloc, tcmalloc, Go and the 2015 design; ratios with their targets
	$(PY) -m pip install --quiet --no-compile --only-binary :all: --group bench || echo "some peers cannot be had for $(TAG): their columns stay empty"
	$(PY) -m pip install --quiet --no-compile --only-binary :all: --group pools || echo "some pools of PyPI cannot be had for $(TAG): their rows say so"
	$(PY) -m stress bench $(ARGS)

interrupt: build  ## 100,000,000 operations of each primitive under timer signals and migrations
	$(PY) -m stress interrupt --ops 400000000 $(ARGS)

traps: build  ## each section interrupted before each of its instructions by each primitive, on the same P
	$(PY) -m stress traps $(ARGS)

explore: $(READY)  ## every schedule of small worlds, up to three preemptions, on the engine itself
	$(PY) -m stress explore $(ARGS)

mutants: build  ## planted bugs: each must be caught (about an hour on two cores)
	$(PY) -m stress mutants $(ARGS)

proof: $(READY)  ## what takes too long for each commit: all mutants, a deeper search, an hour of soak; one table
	.ci/proof

plot: build  ## draw docs/migrate.svg and docs/objects.svg, the pictures of the README
	$(PY) -m stress migrate --items records --plot docs/migrate.svg $(ARGS)
	$(PY) -m stress migrate --items objects --plot docs/objects.svg $(ARGS)

lint: build  ## ruff, and mypy --strict
	$(PY) -m pip install --quiet --no-compile --group lint
	$(PY) -m ruff check .
	$(PY) -m mypy

# The same sources built for a purpose, and the scenarios run on that build.
numbers: $(READY)  ## a build with settable P numbers: worlds of many Ps on few CPUs
	$(PY) -m stress.variants numbers oversubscribe --items records --threads 1000 --procs 4 --seconds 3 $(ARGS)
	$(PY) -m stress.variants numbers churn burst resize threads --items records --procs 64 --threads 100 --seconds 2 $(ARGS)

tsan: $(READY)  ## all scenarios under the thread sanitizer (portable mode: it cannot see sections)
	$(PY) -m stress.variants tsan --mode portable --seconds 2 $(ARGS)

asan: $(READY)  ## all scenarios under the address sanitizer, both modes
	$(PY) -m stress.variants asan --seconds 2 $(ARGS)

swapped: $(READY)  ## the test suites of real projects, with our exit stacks in the place of contextlib's (ten minutes)
	$(PY) -m stress.swapped $(ARGS)

debug: $(READY)  ## unoptimized, with assertions and Cython's annotated sources in build/cython
	$(PY) -m stress.variants debug --seconds 1 $(ARGS)

docs: build  ## the pages and the reference from docstrings, in build/docs; a warning is an error
	$(PY) -m pip install --quiet --no-compile --group docs
	$(PY) -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --builder html --doctree-dir build/doctrees docs build/docs $(ARGS)

examples: build  ## each example, with its figures: how many times as fast with pooling (a minute)
	@for example in examples/[a-z]*.py; do \
		echo "==== $$example"; PYTHONPATH=$(CURDIR) $(PY) $$example $(ARGS) || exit 1; \
	done

dist: $(READY)  ## wheel and source archive, in dist
	$(PY) -m build

clean:  ## remove everything that was built, environments included
	rm -rf build dist .venv *.egg-info deferpool/*.so stress/*.so
