#!/usr/bin/env bash
# Sets everything up, then runs every check and every test. Arguments go to pytest (`test.sh -m "not slow"`).
# WORKERS=n sets how many tests run side by side (default: one for each core, at most 4).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
cd "$root"
# One thread for each process: tests run side by side, and results do not depend on the number of cores.
export OMP_NUM_THREADS=1
# Hundreds of modules are compiled once, not by every worker and every process that a test starts.
unset PYTHONDONTWRITEBYTECODE

# The checks run beside the tests, on what one of their programs leaves of a core and of the last test's time. What
# they say is shown in one piece when they end, not between the lines of the tests.
run_checks() {
    local said status=0
    said="$(bash scripts/check.sh 2>&1)" || status=$?
    printf '\n%s\n' "$said"
    return "$status"
}
run_checks &
checks_job=$!
trap 'kill "$checks_job" 2>/dev/null || true' EXIT

workers="${WORKERS:-$(.venv/bin/python -c 'import os; print(min(4, os.cpu_count() or 1))')}"
echo "test: pytest, $workers side by side, and the checks beside it"
tests=0
.venv/bin/python -m pytest -n "$workers" --dist worksteal "$@" || tests=$?
checks=0
wait "$checks_job" || checks=$?
if [ "$checks" -ne 0 ]; then
    echo "test: the checks failed; what they found stands above" >&2
fi
[ "$tests" -eq 0 ] || exit "$tests"
exit "$checks"
