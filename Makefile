# Strata. `make demo` and `make test` need nothing but Python 3.11, and install what is missing.
SHELL := /bin/bash
VENV ?= $(or $(VIRTUAL_ENV),.venv)
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
STATE ?= .strata
STAMP := $(VENV)/.strata-setup
MANIFESTS := constraints.txt $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)

.PHONY: help setup up down demo proto lint types test test-unit test-system bench check

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Install everything into the virtual environment ($VIRTUAL_ENV or .venv).

$(STAMP): $(MANIFESTS) deploy/setup.sh
	bash deploy/setup.sh "$(VENV)"
	@touch $@

up: setup ## Start the whole stack and return when it is ready.
	strata up --detach --state $(STATE)

down: ## Stop the stack.
	strata down --state $(STATE)

demo: setup ## Start the stack, send the sample requests, show what comes back, stop.
	bash deploy/demo.sh $(STATE)

proto: setup ## Generate the code of the contracts.
	python libs/contracts/generate.py
	python -m contracts.asyncapi > docs/asyncapi.json

lint: setup ## Ruff, import contracts, buf.
	ruff check .
	ruff format --check .
	lint-imports
	buf lint proto
	bash deploy/check_contracts.sh

types: setup ## Mypy, strict, package by package.
	python deploy/check_types.py

test: test-unit test-system ## All tests.

test-unit: setup ## Tests of each package against real NATS, gRPC, SQLite and LanceDB; no model.
	python deploy/run_tests.py "not model and not system" 4

test-system: setup ## The whole stack with real vLLM: flows, kills, contracts.
	python deploy/run_tests.py "model or system" 1

bench: setup ## Measure: latency by step, gateway CPU, Strata against direct vLLM, steps against bare KV.
	python tests/bench/run.py

check: lint types test ## What CI runs.
