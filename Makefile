# Everything here needs only Python 3.11 or newer and make; each target makes the virtual environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := engine site_node central_node field_lab tests

.DEFAULT_GOAL := help

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Packhorse needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[develop]'
	touch $@

install: $(VENV)/installed  ## Make the virtual environment with everything in it

demo: install  ## A central node and two sites come into agreement over a link that keeps breaking
	$(BIN)/field-lab demo

test: install check  ## Check, then run every test
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations 10 $(TEST_ARGUMENTS)

check: install  ## Format, lint and types of the code, lint and breaking changes of the contract
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --strict $(SOURCES)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/baseline.binpb

CRASH_ROUNDS ?= 5
crashes: install  ## Kill daemons with frames in flight, CRASH_ROUNDS rounds from PACKHORSE_SEED on, and count
	PACKHORSE_CRASH_ROUNDS=$(CRASH_ROUNDS) $(BIN)/python -m pytest --capture no --timeout 1800 tests/processes/test_crashes.py

FUZZ_EXAMPLES ?= 2000
fuzz: install  ## Feed every fuzzer FUZZ_EXAMPLES examples of frames, sessions, files, tokens and calls; minutes
	PACKHORSE_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest --numprocesses 2 --timeout 3600 \
		tests/test_any_*.py tests/*/test_any_*.py tests/*/*/test_any_*.py

MEMORY_RECORDS ?= 100000 400000
memory: install  ## Measure the most memory of each daemon with MEMORY_RECORDS, few and many, pulled and pushed
	PACKHORSE_MEMORY_RECORDS="$(MEMORY_RECORDS)" $(BIN)/python -m pytest --capture no --timeout 3600 tests/processes/test_memory.py

SEEDS ?= 100
FIRST_SEED ?= 1
simulate: install  ## Run SEEDS seeds of the simulator from FIRST_SEED on, in two processes; 2000 take some 20 minutes
	$(BIN)/field-lab simulate --seeds $(SEEDS) --first-seed $(FIRST_SEED)

oracle: SEEDS := 1000
oracle: install  ## Judge SEEDS countries (1000) from FIRST_SEED on by the specification; 1000 take some 40 minutes
	$(BIN)/field-lab oracle --seeds $(SEEDS) --first-seed $(FIRST_SEED)

ROWS ?= 100000
bench: install  ## Measure how fast rows travel, beside what SQLite alone does; ROWS=100000; writes build/bench.json
	$(BIN)/field-lab bench --rows $(ROWS)

ONLY ?=
mutants: install  ## Break each law and finding on purpose and see its test fail; ONLY=name runs one
	ONLY='$(ONLY)' $(BIN)/python -m tests.mutants.run

protos: install  ## Generate the Python messages again from the contract
	$(BIN)/buf format --write
	$(BIN)/python protos/generate.py

documents: install  ## Write the generated parts of the documents again
	$(BIN)/python docs/generate.py

baseline: install  ## At a release: make today's contract the one that later changes are compared with
	$(BIN)/buf build --output protos/baseline.binpb

.PHONY: help install demo test check crashes fuzz memory simulate oracle bench mutants protos documents baseline
