#!/bin/sh
# Verify and time everything that needs a GPU, and write one table.
#
#   bench/gpu.sh [FOLDER]        results go there; default docs/results
#   PYTHON=python3.12 EXTRA_PATH=/opt/rtx bench/gpu.sh
#
# PYTHON needs torch and torchvision with CUDA; with onnx and onnxscript engines are built too.
# EXTRA_PATH is added to PYTHONPATH, for libraries unpacked by hand (TensorRT-RTX's wheel).
set -eu
cd "$(dirname "$0")/.."
out=${1:-docs/results}
python=${PYTHON:-python3}
export PYTHONPATH="${EXTRA_PATH:-}${EXTRA_PATH:+:}$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

"$python" -m export.doctor || true
"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "error: PyTorch finds no CUDA GPU; run this on a machine that has one")'
status=0
if "$python" -c 'import pytest' 2>/dev/null; then
    "$python" -m pytest -q -m gpu -o timeout=900 || status=1
else
    echo "pytest is not installed: the tests marked gpu were not run"
fi
"$python" bench/gpu.py --json "$out/gpu.json" --markdown "$out/gpu.md" || status=1
exit $status
