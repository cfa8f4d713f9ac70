# Every target installs what it needs into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SKY := .venv-sky
SKY_INSTALLED := $(SKY)/.installed

.PHONY: install sky demo sweep-demo test test-slow cloud-test check format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# SkyPilot and datasets want different versions of click: SkyPilot gets an environment of its own.
sky: $(SKY_INSTALLED)  ## SkyPilot, which the tests ask about sky/*.yaml

$(SKY_INSTALLED): tests/sky/constraints.txt
	$(PYTHON) -m venv $(SKY)
	$(SKY)/bin/python -m pip install --quiet --constraint tests/sky/constraints.txt skypilot
	touch $@

demo: install  ## train the debug recipe end to end, on a CPU or on every GPU there is
	$(BIN)/gpt2dist train debug

sweep-demo: install  ## six trials with early stopping, then the table, the picture and the page
	$(BIN)/gpt2dist tune tune/debug.yaml --fresh
	$(BIN)/gpt2dist compare --sweep debug --x tokens --html runs/sweeps/debug/report.html \
	  --png runs/sweeps/debug/frontier.png

test-slow: install  ## whole runs and sweeps under Ray, two hosts, full disks: minutes more
	$(BIN)/python -m pytest -m slow

cloud-test: install sky  ## real `sky launch` on a cloud made of this machine: see docs/cluster.md
	$(SKY)/bin/python -m pip install --quiet --constraint tests/sky/constraints.txt \
	  'skypilot[slurm]' uv
	PATH="$(CURDIR)/$(SKY)/bin:$$PATH" cluster/lab/prove.sh

test: install sky
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(SKY) *.egg-info
