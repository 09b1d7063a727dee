#!/usr/bin/env bash
# The engine's table on a GPU, a section of its own in RESULTS.md: samples a second of all contestants, the share of the
# bare rate, kept features, and the time to a mean Dice of 0.88 on real hippocampi. Without a GPU it says so and does
# nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no GPU here, so there is nothing to measure (python -m benchmarks engine is the table of the CPU)"
    exit 0
fi
exec "$python" -m benchmarks engine_gpu
