# Everything starts here. `make run` and `make test` set up what they need on a fresh machine.
PYTHON ?= python3
ARGS   ?=
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help run demo demo-chat replicated test bench bench-kernels scale flame load soak lint types proto build interop clean

help:            ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

run: build       ## the shopping cart: user function and proxy, until Ctrl-C
	$(BIN)/python -m examples.shopping_cart.run

demo: build      ## a purchase, a kill -9 of the proxy, the same cart again
	$(BIN)/python -m examples.shopping_cart.demo

demo-chat: build ## three nodes chat, one is killed with kill -9 and comes back
	$(BIN)/python -m examples.chat.demo

replicated: build ## two workers and Postgres: kill -9 of everything, the journal deleted, a start from Postgres
	@tests/interop/postgres/setup
	$(BIN)/python -m examples.shopping_cart.replicated $(ARGS)

test: build interop  ## the test suite; pytest arguments in ARGS, such as -n 0 for one process
	$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

soak: build      ## the long runs: chaos, fuzzing
	$(BIN)/pytest -m slow $(ARGS)

bench: build     ## the end-to-end figures and their anchors, with a report in bench/out/report.html
	@scripts/setup-bench
	$(BIN)/python -m stateside.bench $(ARGS)

bench-kernels: build ## the kernels against what they replace, and against stored ratios
	@scripts/setup-bench
	$(BIN)/python -m stateside.bench.kernels $(ARGS)

scale: build     ## cost by number of entities, connections, bytes, events; ARGS=--quick for a minute
	$(BIN)/python -m stateside.bench.scale $(ARGS)

flame: build     ## a flame graph of the proxy under load, into bench/out/flame.svg
	@scripts/setup-bench
	$(BIN)/python -m stateside.bench.flame $(ARGS)

load: build      ## locust's shoppers against the shopping cart; ARGS=--web for its pages, ARGS=--ci for a short run
	@scripts/setup-load
	$(BIN)/python -m stateside.bench.shoppers $(ARGS)

lint: build      ## style of Python and Cython sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: build     ## static types
	$(BIN)/mypy

proto: build     ## rebuild what is generated from .proto files
	$(BIN)/python scripts/generate_protos.py

interop: build   ## the third-party programs of tests/interop; quick when they are there
	@tests/interop/setup

build: $(VENV)/.ready
	@scripts/build

$(VENV)/.ready: scripts/setup requirements.lock
	@scripts/setup $(PYTHON)

clean:           ## forget the virtual environment and everything built
	rm -rf $(VENV) build *.egg-info _speedups/*.so _speedups/*.c bench/*.so
