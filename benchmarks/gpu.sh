#!/bin/sh
# Everything that waits for a GPU, in one command: the tests that need one, then what its settings bring.
# Not run here so far. From the repository's root, after `make .venv/installed` with a CUDA build of torch:
#     sh benchmarks/gpu.sh [--model roberta-large]
# Flash attention is measured where its package is installed. MiniLM's results go to results/benchmarks/gpu.json and,
# with all other benchmarks, into results/benchmarks.md; those of another --model are measured after them, and printed.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import torch; assert torch.cuda.is_available(), "no GPU that torch can use"; print(torch.cuda.get_device_name(0))'
"$python" -m pytest -q -rs tests/adapters/test_svd.py tests/adapters/test_tuner_runtime.py tests/training/test_device_settings.py
"$python" benchmarks/report.py --again --only gpu
if [ $# -gt 0 ]; then "$python" benchmarks/gpu.py "$@"; fi
