#!/usr/bin/env bash
# What one GPU shows in half an hour on CIFAR-10: see benchmarks/gpu.py, which this starts.
#
#     bash benchmarks/gpu.sh PATH/cifar10-jpeg          # a folder of parquet files; the name goes into every result
#     bash benchmarks/gpu.sh --tiny                     # the same commands in minutes on a processor, with digits
#
# PYTHON picks an interpreter. Stop it by Ctrl-C; the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=".:cli:adapters${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" benchmarks/gpu.py "$@"
