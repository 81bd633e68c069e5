# make demo   set up, then map a real scene end to end, offline
# make test   set up, then run the tests
# make test-servers   install and start PostgreSQL with pgstac, and search it
# make check  formatting, lint, types, generated files
# make bench  ratios against peers and physical limits
# make docs   man pages and completions
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SERVERS := .venv-servers
PATHS := geoml_cli tests examples

.PHONY: demo test test-servers slow check bench tables docs clean
demo: $(READY)
	@$(MAKE) --no-print-directory -C examples/landcover

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal

test-servers: $(READY) $(SERVERS)/.ready
	@[ "$$(id -u)" != 0 ] || ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 \
	  || { apt-get -q update && apt-get -qy install --no-install-recommends postgresql postgresql-postgis; } \
	  || echo "make: PostgreSQL and PostGIS cannot be installed" >&2
	GEOML_SERVERS=$(abspath $(SERVERS)) $(BIN)/pytest -q -rs -m servers

slow: $(READY)
	$(BIN)/pytest -q -m "slow or gpu"

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/ruff check $(PATHS)
	$(BIN)/mypy
	$(BIN)/python -m geoml_cli.docs --check

bench: $(READY)
	OMP_WAIT_POLICY=PASSIVE PYTHONPATH=tests $(BIN)/python -m bench $(NAMES)

# tables of BENCHMARKS.md from real sets, which are not part of the project (GEOML_DATA names their folder): hours
tables: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONPATH=tests $(BIN)/python -m bench.table $(abspath ../tables)

docs: $(READY)
	$(BIN)/python -m geoml_cli.docs

clean:
	rm -rf $(VENV) $(SERVERS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	$(MAKE) --no-print-directory -C examples/landcover clean

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; name one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: $(PYTHON) has no venv module; on Debian: apt install python3-venv" >&2; exit 1; }

$(READY): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(SERVERS)/.ready:
	$(PYTHON) -m venv $(SERVERS) && $(SERVERS)/bin/pip install -q --disable-pip-version-check \
	  "pypgstac[psycopg]>=0.9" "stac-fastapi.pgstac>=5" uvicorn && touch $@ \
	  || echo "make: pgstac cannot be installed" >&2

$(VENV)/.ready-dev: $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@touch $@
