# Each target is a short line over a command that also works without make (see README.md).
PYTHON ?= python3.11
# an older pip takes three times as long to resolve the same lock, hence the upgrade in .venv
VENV   := .venv
BIN    := $(VENV)/bin
PATH   := $(CURDIR)/$(BIN):$(PATH)
export PATH
# packages are compiled when they are first imported; where that may not be kept, each process does it anew, for seconds
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test lint types imports pipeline realdata heavy long fuzz docs bench serve source supply sbom wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[jpeg,viewer]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]' ./examples/hippodeep ./examples/meshnet
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed  ## make .venv and install the package
install-dev: $(VENV)/.installed-dev  ## the same with the tools for tests and lint

demo: install  ## generate the demo cohort and run the whole pipeline on it
	monai-tl key ~/.config/monai_tl/demo.key --demo-seed 0
	monai-tl phantom data --seed 0
	monai-tl run

test: install-dev  ## the default tests
	python -m pytest -n 2 -q

lint: install-dev  ## style, and the Dockerfiles
	ruff check .
	ruff format --check .
	hadolint Dockerfile docker/orthanc.Dockerfile

types: install-dev  ## static types, strict
	mypy

imports: install-dev  ## who may import whom
	lint-imports

pipeline: install-dev  ## tests that run DVC, a Prefect server or many processes
	python -m pytest -q -m '(pipeline or slow) and not long' -n 2 --dist loadfile

# the real data first: one file of them takes longest, and the waits of the others fill the gaps
heavy: install-dev  ## the tests of pipeline and realdata at once, as the gate runs them
	python -m pytest -q -m '(pipeline or slow or realdata) and not long' -n 2 --dist loadfile --no-loadscope-reorder tests/realdata tests

long: install-dev  ## tests that take many minutes each: random kills, leaks of a whole run, the shipped source anew
	python -m pytest -q -m long -n 2 --dist loadfile

fuzz: install-dev  ## a minute of damaged files for each reader, behind all other work
	nice -n 19 python tests/support/fuzz_targets.py all --seconds 60 --seed 0

realdata: install-dev  ## tests on real images and weights (folder MONAI_TL_SHARED, else ../shared)
	python -m pytest -q -m realdata -n 2 --dist loadfile

docs: $(VENV)/.installed  ## the pages as a site: site/index.html
	python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet --strict

bench: install  ## measure against peers and the limit; rewrites benchmarks/RESULTS.md
	python -m pip install --quiet -c constraints.txt -e '.[bench]'
	python -m benchmarks

serve: install  ## dashboard on http://127.0.0.1:4200 and a nightly run
	monai-tl serve

source: install  ## rebuild the demo's pretrained source from hospital A
	monai-tl key ~/.config/monai_tl/demo.key --demo-seed 0
	monai-tl phantom data --seed 0
	monai-tl pretrain sources/abdomen_a/pretrain.yaml data/hospital_a sources/abdomen_a

supply: $(VENV)/.installed  ## licences, secrets in the history, known holes
	python -m pip install --quiet -c constraints.txt -e '.[supply]'
	python .ci/supply.py

sbom: $(VENV)/.installed  ## sbom.json: every installed package with version and licence, as CycloneDX
	python -m pip install --quiet -c constraints.txt -e '.[supply]'
	cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json

wheel: $(VENV)/.installed  ## the release: equal commits give equal bytes
	python -m pip install --quiet -c constraints.txt -e '.[supply]'
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) python -m hatchling build -t wheel -d dist

clean:  ## remove products and caches, keep data and .venv
	rm -rf site dist sbom.json artifacts reports .monai_tl .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis
