# Two commands do everything on a machine that has only Python and make: `make demo` and `make test`.
PYTHON ?= python3
NEWEST ?= python3.13
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
BENCH_ARGS ?=
FIGURES_ARGS ?=
KILL_ARGS ?=
NOTEBOOK_ARGS ?=
JOBS ?= 3
TRIALS ?= 1
export SARZARR_TRIALS := $(TRIALS)
# Every process that a test starts would compile the package for itself.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal
SECONDS ?= 0
SEED ?= 1

.PHONY: demo test test-slow test-oldest test-newest lint format check figures identify-corpus fuzz bench-loader bench-crops bench-ingest bench-warp bench-codecs bench-exactness bench-grouping bench-growth bench-predict bench-chips bench-chips-delivery interop frameworks notebooks kill clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable ".[torch,plot]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable ".[torch,plot,table,vector,onnx,test,dev,interop,frameworks,notebooks]"
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP_INSTALL) --editable ".[bench]"
	touch $@

demo: $(VENV)/.demo  ## synthesise scenes, ingest them, load a batch, write a picture into stores/
	$(BIN)/sarzarr demo --folder stores

test: $(VENV)/.test  ## every test that is quick, in JOBS processes
	$(PYTEST) -m "not slow" --durations=50

test-slow: $(VENV)/.test  ## the long ones; TRIALS=10 for ten times as many random trials
	$(PYTEST) -m slow --timeout 900 --durations=25

kill: $(VENV)/.test  ## SIGKILL every command at many moments, and run it again; KILL_ARGS=--times=5 for five times as many
	PYTHONPATH=.:tests $(BIN)/python tests/kills.py $(KILL_ARGS)

test-oldest test-newest:  ## tests marked compat, with the oldest dependencies declared, or the newest on the newest Python
	$(PYTHON) tools/legs.py $(@:test-%=%)

lint: $(VENV)/.test  ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

figures: | $(BIN)/python  ## the figures of the house; FIGURES_ARGS=--check fails where one does not hold
	$(BIN)/python tools/figures.py $(FIGURES_ARGS)

check: lint test

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

identify-corpus: $(VENV)/.test  ## names and tags of all products, and what each file is taken as
	PYTHONPATH=tests $(BIN)/python tests/identify_corpus.py

fuzz: $(VENV)/.test  ## mutated GeoTIFFs, 5,000 or as many as SECONDS allow; SEED= chooses others. What is found is kept
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS) --seed $(SEED) --keep fuzz-found

bench-loader: $(VENV)/.bench
	$(BIN)/python benchmarks/bench_loader.py $(BENCH_ARGS)

bench-ingest: $(VENV)/.bench
	$(BIN)/python benchmarks/bench_ingest.py $(BENCH_ARGS)

bench-crops: $(VENV)/.test  ## random crops beside torchgeo's over the GeoTIFFs, in an environment of its own
	$(BIN)/python benchmarks/bench_crops.py $(BENCH_ARGS)

bench-grouping: $(VENV)/.test
	$(BIN)/python benchmarks/bench_grouping.py $(BENCH_ARGS)

bench-growth: $(VENV)/.test  ## adding a scene, opening, info, the tree and a second run, by the number of scenes; BENCH_ARGS="--before CHECKOUT"
	$(BIN)/python benchmarks/bench_growth.py $(BENCH_ARGS)

bench-predict: $(VENV)/.test  ## a prediction against the bare model on batches in memory
	$(BIN)/python benchmarks/bench_predict.py $(BENCH_ARGS)

bench-chips: $(VENV)/.test  ## an archive of chips to a collection, beside reading it with rasterio
	$(BIN)/python benchmarks/bench_chips.py $(BENCH_ARGS)

bench-chips-delivery: $(VENV)/.test  ## batches of chips of several sizes, beside a gather of them from RAM
	$(BIN)/python benchmarks/bench_chips_delivery.py $(BENCH_ARGS)

bench-warp: $(VENV)/.bench
	$(BIN)/python benchmarks/bench_warp.py $(BENCH_ARGS)

bench-codecs: $(VENV)/.bench
	$(BIN)/python benchmarks/bench_codecs.py $(BENCH_ARGS)

bench-exactness: $(VENV)/.test  ## patches lost and repeated in each situation of a training, with real processes
	$(BIN)/python benchmarks/bench_exactness.py $(BENCH_ARGS)

interop: $(VENV)/.test  ## docs/interop.md: who reads what, in the pinned versions and, on NEWEST, in the newest
	$(BIN)/python benchmarks/interop.py $(NEWEST) > docs/interop.md

frameworks: $(VENV)/.test  ## docs/frameworks.md: what each training framework is given of an epoch, in an environment of its own
	$(BIN)/python benchmarks/run_frameworks.py $(BENCH_ARGS) > docs/frameworks.md

notebooks: $(VENV)/.test  ## every notebook from start to end; NOTEBOOK_ARGS="--keep build/notebooks" keeps copies and pictures
	$(BIN)/python tools/notebooks.py $(NOTEBOOK_ARGS)

clean:
	rm -rf $(VENV) $(VENV)-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
