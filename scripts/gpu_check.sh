#!/usr/bin/env bash
# On a machine with a card: the tests marked gpu, then `mbrl bench --device cuda` into results/bench/gpu.md.
# Needs a build of torch with CUDA in .venv. PYTHON=... takes another interpreter, DEVICE=cuda:1 another card,
# ROWS=sac,iql some rows; further arguments go to `mbrl bench` (`gpu_check.sh --windows 3`).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
python="${PYTHON:-$root/.venv/bin/python}"
device="${DEVICE:-cuda}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PYTHONPATH="$root"

if ! "$python" -c "from mbrl.core.device import find_device; find_device('$device')" 2>/dev/null; then
    "$python" -c "
from mbrl.core.device import find_device
from mbrl.core.errors import ConfigError
try:
    find_device('$device')
except ConfigError as error:
    print(f'gpu_check: {error}')
" >&2
    exit 1
fi

# Every failure counts, but the table is measured all the same: it says what is slow and what does not run.
failed=0
"$python" -m pytest -m gpu tests/gpu -p no:cacheprovider || failed=$?
"$python" -m mbrl.cli bench --device "$device" ${ROWS:+--rows "$ROWS"} --out results/bench/gpu.json "$@"
exit "$failed"
