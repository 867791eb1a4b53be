#!/usr/bin/env bash
# Sets everything up, then runs every check and every test. Arguments go to pytest (`test.sh -m "not slow"`).
# WORKERS=n sets how many tests run side by side (default: one for each core, at most 4).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
cd "$root"
# One thread for each process: tests run side by side, and results do not depend on the number of cores.
export OMP_NUM_THREADS=1

checks=0
bash scripts/check.sh || checks=$?
workers="${WORKERS:-$(.venv/bin/python -c 'import os; print(min(4, os.cpu_count() or 1))')}"
echo "test: pytest, $workers side by side"
.venv/bin/python -m pytest -n "$workers" --dist worksteal "$@" || exit $?
if [ "$checks" -ne 0 ]; then
    echo "test: the tests passed, but the checks before them did not" >&2
    exit "$checks"
fi
