# Everything a person does here, one line each; `make help` lists them. Each phase prints one line with its seconds
# (.ci/phase) and leaves its output in logs/NAME.log.
SHELL := /bin/bash
PHASE := python3 .ci/phase
PY := .venv/bin/python
CLUSTER := PYTHONPATH=tests python3 -m cluster
PYTEST := $(PY) -m pytest -q
UNIT := tests/minisgl tests/minisgl_operator tests/contract tests/faults
.DEFAULT_GOAL := help
.PHONY: help demo test venv model cluster-build cluster-up cluster-down kubeconfig image image-cuda generate lint test-unit \
        test-charts test-control-plane test-e2e unit-phase charts-phase control-plane-phase e2e-phase load draws faults figures clean-cache

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- the two commands

demo:  ## from nothing to an answer: cluster, operator, model, a question; leaves the cluster running
	@$(PHASE) venv --hint "check that pip reaches its index, then: make demo" -- .ci/venv
	@$(PHASE) model -- $(MAKE) -s model
	@$(PHASE) cluster-build --hint "make cluster-build shows all output" -- $(MAKE) -s cluster-build
	@$(PHASE) cluster-up --hint "make cluster-down, then: make demo" -- $(MAKE) -s cluster-up
	@$(PHASE) demo --show --hint "kubectl describe msgl -n models, with KUBECONFIG=\$$(make -s kubeconfig)" -- \
	    env PYTHONPATH=tests $(PY) -m cluster.demo

# Nothing runs on what was not made; but tests that fail keep no other tests from telling what they see.
test:  ## everything: lint, unit, CPU engine, charts, faults on the way to a real API server, end to end on the real cluster
	@$(PHASE) venv --hint "check that pip reaches its index, then: make test" -- .ci/venv
	@$(PHASE) lint --hint "make lint; the formatter mends with: .venv/bin/ruff format" -- $(MAKE) -s lint
	@$(PHASE) model -- $(MAKE) -s model
	@$(PHASE) cluster-build --hint "make cluster-build shows all output" -- $(MAKE) -s cluster-build
	@$(MAKE) -sk unit-phase charts-phase control-plane-phase e2e-phase

unit-phase charts-phase control-plane-phase:
	@$(PHASE) $(@:-phase=) --show --hint "make test-$(@:-phase=)" -- $(MAKE) -s test-$(@:-phase=)

e2e-phase:
	@$(PHASE) cluster-up --hint "make cluster-down, then: make cluster-up" -- $(MAKE) -s cluster-up
	@$(PHASE) e2e --show --hint "the cluster still runs: make test-e2e; make cluster-down ends it" -- $(MAKE) -s test-e2e
	@$(PHASE) cluster-down -- $(MAKE) -s cluster-down

# ---- what the two are made of

venv:  ## .venv with both packages editable and all tools
	@.ci/venv

model: venv-quiet  ## convert the small real model once; prints its folder
	@PYTHONPATH=tests $(PY) -m models

cluster-build:  ## build what the cluster is made of (Go, images' base); cached
	@$(CLUSTER) build

cluster-up: venv-quiet model-quiet  ## start the real one-node Kubernetes, with our images in it
	@$(CLUSTER) up

cluster-down:  ## end it: no process, mount, link or cgroup stays
	@$(CLUSTER) down

kubeconfig:  ## print the path of its kubeconfig
	@$(CLUSTER) kubeconfig

image: venv-quiet  ## build all images from their Dockerfiles and load them into the running cluster; prints their names
	@$(CLUSTER) image

image-cuda:  ## build the runtime's image for GPUs and look into it; prints its name (35 GiB of disk, minutes)
	@$(CLUSTER) image-cuda

generate: venv-quiet  ## write all that is derived: CRD, RBAC, value schemas, argument tables, versions
	@$(PY) -m minisgl_operator.generate

lint: venv-quiet  ## format, lint, types, layers, YAML, generated files up to date
	@.venv/bin/ruff format --check -q . || { echo "not formatted; run: .venv/bin/ruff format ."; exit 1; }
	@.venv/bin/ruff check -q .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/yamllint -s charts manifests tests .pre-commit-config.yaml
	@$(PY) -m minisgl_operator.generate --check

test-unit: venv-quiet model-quiet  ## tests without root and without a cluster (minutes)
	@$(PYTEST) $(UNIT) -m "not cluster and not faults"

faults: venv-quiet  ## the whole fault matrix: every process killed in every phase, without and with real ranks (minutes)
	@$(PYTEST) tests/faults

draws: venv-quiet  ## 10,000 random requests over every field: an answer or a reason, and streams equal answers (minutes)
	@MINISGL_DRAWS=10000 $(PYTEST) --timeout=0 tests/minisgl/server/test_any_request.py

test-charts: venv-quiet  ## charts and manifests against their schemas; needs make cluster-build once
	@$(PYTEST) tests/charts

test-control-plane: venv-quiet  ## the operator against a real API server, with every fault on the way; needs make cluster-build once
	@$(PYTEST) tests/control_plane

load: venv-quiet  ## measure the operator with MODELS=1000 models on a real API server; needs make cluster-build once (minutes)
	@PYTHONPATH=tests $(PY) -m control_plane.load

test-e2e: venv-quiet  ## end to end on the cluster of make cluster-up (or: KUBECONFIG and image names of your own)
	@set -a; [ -n "$$MINISGL_OPERATOR_IMAGE" ] || eval "$$($(CLUSTER) env --export)"; $(PYTEST) tests/e2e

figures: venv-quiet  ## measure on the running cluster what the README's table shows
	@set -a; eval "$$($(CLUSTER) env --export)"; PYTHONPATH=tests $(PY) tests/e2e/figures.py

clean-cache:  ## empty the cache of built and fetched things
	@$(CLUSTER) clean-cache

.PHONY: venv-quiet model-quiet
venv-quiet:
	@.ci/venv >&2
model-quiet: venv-quiet
	@PYTHONPATH=tests $(PY) -m models >/dev/null
