# Every target sets up .venv first when it is missing or out of date; with it in place that takes a blink.
#
#   make demo                      one whole run on this machine, M0 -> M1 -> M2 -> M3
#   SEED_DATA=trees.jsonl make demo    the same on a seed file of yours (Open Assistant trees, plain or gzip)
#   make test                      everything that CI checks
#
# PYTHON=python3.12 chooses the interpreter, FLAVOUR=cpu|cuda the build (default: what the machine has).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo model test test-cluster test-gpu test-store fuzz lint unit heavy heavy-vllm heavy-others bench crds locks images clean

VENV := .venv
BIN := $(VENV)/bin
FLAVOUR ?= auto
REGISTRY ?= localhost
IMAGES ?=
BUILD_FLAGS ?=
MODEL ?= .cache/models/smollm2-135m-instruct
export SEED_DATA MODEL
# Every process would compile all it imports anew: seconds for torch, and a run starts dozens of processes.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter of a fitting version.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.12 python3.11 python3.13; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo "$$p"; break; }; \
	done)
endif

# Whole runs wait for one process after the other: two at once keep two cores busy. One of them takes up to 5 GB.
# In the order of their names, which is whole runs first: nothing long is left for the end.
HEAVY_AT_ONCE = $(shell $(BIN)/python -c 'import os, psutil; memory = psutil.virtual_memory().available; \
	print(max(1, min(4, os.cpu_count() or 1, memory // 5_000_000_000)))')
HEAVY = -m "heavy or vllm or e2e" --ignore=tests/bench --ignore=tests/gpu -n $(HEAVY_AT_ONCE) --dist loadfile \
	--no-loadscope-reorder -p no:cacheprovider
VLLM_TESTS := tests/stages/engines/test_vllm_engine.py
PARALLEL := -m "not heavy and not vllm and not e2e" --ignore=tests/bench --ignore=tests/gpu -n auto --dist worksteal -p no:cacheprovider

help:  ## lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

venv:  ## sets up .venv for this machine
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none was found on PATH;" \
		"name one: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }
	@"$(PYTHON)" images/setup_env.py --venv $(VENV) --flavour $(FLAVOUR)

model: venv  ## fetches the small real model of the demo
	@test -d "$(MODEL)" && test -f "$(MODEL)/config.json" || $(BIN)/python -m srlm_stages.demo.model "$(MODEL)"

demo: model  ## one whole run on this machine
	@$(BIN)/srlm demo

lint: venv  ## ruff, import-linter, mypy
	@echo "== ruff";          $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== import-linter"; $(BIN)/lint-imports
	@echo "== mypy";          timeout 300 $(BIN)/mypy

unit: venv  ## fast tests, in parallel
	@echo "== fast tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

heavy: model  ## tests with torch, vLLM and whole runs, as many at once as fit the machine
	@echo "== heavy tests"
	@$(MAKE) --no-print-directory -j2 heavy-vllm heavy-others

# vLLM looks into every imported module, and trips over Flask's, which other tests import: a process of its own.
# Torch on every core in every test process is slower than one thread each.
heavy-vllm:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(VLLM_TESTS) -p no:cacheprovider

heavy-others:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(HEAVY) --ignore=$(VLLM_TESTS)

test: lint unit heavy  ## everything that CI checks

test-cluster: venv  ## the operator's tests on the cluster of KUBECONFIG, with the chart's rights
	@test -n "$${KUBECONFIG:-}" || { echo "error: KUBECONFIG must name the cluster to test on: an empty one, as the" \
		"tests install and remove the definition of runs" >&2; exit 1; }
	@SRLM_TEST_KUBECONFIG="$$KUBECONFIG" $(BIN)/python -m pytest tests/cluster tests/operator/wire -o timeout=600 -p no:cacheprovider

test-store: venv  ## the object store's tests on the server of SRLM_TEST_S3_ENDPOINT, _BUCKET and AWS_*
	@test -n "$${SRLM_TEST_S3_ENDPOINT:-}" || { echo "error: SRLM_TEST_S3_ENDPOINT, SRLM_TEST_S3_BUCKET," \
		"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must name the store to test; the tests write below srlm-tests/" \
		"in the bucket and remove it again" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/contract/artifacts -k named -p no:cacheprovider

fuzz: venv  ## every fault of the sweeps and new random ones each time, where make test takes a sample (tests/README.md)
	@SRLM_TEST_FUZZ=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/sweeps tests/fuzz -n auto --dist worksteal -s -p no:cacheprovider

test-gpu: venv  ## tests of training and inference on a machine with a CUDA GPU (tests/gpu/README.md)
	@$(BIN)/python -m pytest tests/gpu -s -p no:cacheprovider

bench: venv  ## the ratios of the performance goals
	@$(BIN)/python -m pytest tests/bench -m bench -s -p no:cacheprovider

crds: venv  ## writes crds/ and the reference in its README from the models
	@$(BIN)/python -m srlm_operator.crd.definition > crds/.new && mv crds/.new crds/selfrewarding.dev_selfrewardingruns.yaml
	@$(BIN)/python -m srlm_operator.crd.reference > crds/.new && mv crds/.new crds/README.md
	@cp crds/selfrewarding.dev_selfrewardingruns.yaml charts/self-rewarding-operator/files/

locks: venv  ## writes images/requirements/*.txt from pyproject.toml
	@$(BIN)/python images/lock.py

images:  ## builds the images with docker or buildah; IMAGES="operator light" some, REGISTRY, BUILD_FLAGS
	@"$(PYTHON)" images/build.py --registry "$(REGISTRY)" $(IMAGES) -- $(BUILD_FLAGS)

clean:  ## removes what the targets made, but not .venv and the model
	rm -rf .srlm build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find operator stages tests images -name __pycache__ -type d -prune -exec rm -rf {} +
