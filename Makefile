# Every target makes its own virtual environment from a bare python3; nothing need be installed first.
#   make train   set up, then train on MNIST's 60,000 images on the best hardware present
#   make demo    the same with probabilities, and a page to draw digits on, models/demo.html
#   make test    the whole test suite          make lint    ruff and mypy
#   make coverage   the test suite, and which lines it leaves out: at most 8 of 100
#   make bench   the benchmark suite           make clean   remove what these targets made
#   make bench-startup   what should answer at once: imports, gpusvm --help, data list, reading files
#   make bench-workloads   ordinary problems of many kinds, against scikit-learn and scikit-learn-intelex
#   make bench-tune   searches for C and gamma, against GridSearchCV over the same peers
#   make faults  interrupts, full disks, little memory: minutes
#   make fuzz    200,000 hostile inputs for every reader (FUZZ_ARGS="--count 1000 --reader csv --seed 1")
#   make truth   500 random problems: no model claims more than its certificate finds
#   make audit   bandit, and pip-audit where it reaches its source
#   make gpu-extras   the packages of cuda12 and cuda13, each in an environment of its own: do they meet?
#   make dist-check   build sdist and wheel, install the wheel where nothing else is, run it (DIST=dist keeps both)

PYTHON ?= python3
# Processes that run tests. Most tests use several threads by themselves.
TEST_JOBS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin

# MNIST is taken from the first of these that exists; with neither, gpusvm downloads it.
LOCAL_DATA := $(firstword $(wildcard data/mnist ../shared/datasets/mnist))
ifdef LOCAL_DATA
export GPUSVM_DATA_DIR ?= $(abspath $(dir $(LOCAL_DATA)))
endif

# GPU packages are installed where an NVIDIA driver answers, for the CUDA version it runs; GPU= turns this off.
# There are none for a driver that stops at CUDA 11 or before.
CUDA_MAJOR := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
GPU ?= $(if $(filter-out 8 9 10 11,$(CUDA_MAJOR)),$(if $(filter 12,$(CUDA_MAJOR)),cuda12,cuda13))

comma := ,
run_extras := $(GPU)
# Without a GPU, what its tests take that need none; the GPU packages bring their own of each.
dev_extras := dev$(comma)$(or $(GPU),gpu-test)

.PHONY: train demo test coverage lint format docs bench bench-startup bench-workloads bench-tune fuzz faults truth audit gpu-extras dist-check clean

train: $(VENV)/.installed-run
	$(BIN)/gpusvm train --out models/model.svm

demo: $(VENV)/.installed-run
	$(BIN)/gpusvm demo --out models/demo.html $(DEMO_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

coverage: override PYTEST_ARGS += --cov --cov-report=term
coverage: test

faults: $(VENV)/.installed-dev
	$(BIN)/python tests/faults/run.py $(FAULTS_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-bench
	$(BIN)/gpusvm bench benchmarks/full.toml --out benchmarks/results

bench-startup: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/startup.py

bench-tune: $(VENV)/.installed-bench
	$(BIN)/gpusvm bench benchmarks/tune.toml --out benchmarks/results

bench-workloads: $(VENV)/.installed-bench
	$(BIN)/gpusvm bench benchmarks/workloads.toml --out benchmarks/results

fuzz: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_ARGS)

truth: $(VENV)/.installed-dev
	GPUSVM_TRUTH_PROBLEMS=500 GPUSVM_TRUTH_MAX_ITER=200000 $(BIN)/python -m pytest -q tests/test_truth.py

audit: $(VENV)/.installed-audit
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive gpusvm
	$(BIN)/python tools/audit.py

gpu-extras: $(BIN)/python
	tools/gpu_extras.sh $(BIN)/python

dist-check: $(VENV)/.installed-audit
	tools/dist_check.sh $(BIN)/python $(DIST)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpusvm needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-run: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".$(if $(run_extras),[$(run_extras)])"
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(dev_extras)]"
	touch $@ $(VENV)/.installed-run

# The peers of the benchmark suite: scikit-learn-intelex on a CPU, cuML on a GPU.
$(VENV)/.installed-bench: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[intel$(if $(GPU),$(comma)$(GPU))]"
	touch $@ $(VENV)/.installed-run

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@ $(VENV)/.installed-run

$(VENV)/.installed-audit: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[audit]"
	touch $@ $(VENV)/.installed-run

clean:
	rm -rf $(VENV) fuzz-defects build dist *.egg-info models .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
