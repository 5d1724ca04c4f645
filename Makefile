# Each target does its own set-up: a virtual environment in .venv with the exact versions of constraints.txt.
PYTHON ?= python3
VENV := .venv/bin/python
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
JOBS ?= 2
DEMO ?= demo

.PHONY: demo test lint bench clean

demo: .venv/demo.stamp
	$(VENV) -m calogen demo -o "$(DEMO)" --overwrite

test: lint
	$(VENV) -m pytest -n $(JOBS)

lint: .venv/dev.stamp
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

bench: .venv/dev.stamp
	set -e; for file in benchmarks/*.py; do $(VENV) "$$file"; done

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

comma := ,

# torch first and with pip, which finds a build for this machine; then the rest with uv, or with pip where there is no uv.
define install
	$(VENV) -m pip install -c constraints.txt torch
	{ $(VENV) -m pip install -q -c constraints.txt uv && \
	  $(VENV) -m uv pip install --python $(VENV) $${PIP_FIND_LINKS:+--find-links "$$PIP_FIND_LINKS"} \
	    -c constraints.txt -e "$(1)"; } || \
	$(VENV) -m pip install -c constraints.txt -e "$(1)"
	touch $@
endef

.venv/made.stamp:
	$(PYTHON) -c "import sys; sys.exit('calogen needs Python 3.11 or newer: make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo.stamp: .venv/made.stamp pyproject.toml constraints.txt
	$(call install,.)

.venv/dev.stamp: .venv/made.stamp pyproject.toml constraints.txt
	$(call install,.[geant4$(comma)dev])
	touch .venv/demo.stamp
