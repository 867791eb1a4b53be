#!/usr/bin/env bash
# Trains one experiment for several seeds and evaluates each last policy; one JSON line a seed goes to stdout.
#   bash scripts/run_seeds.sh demo-mopo "0 1 2 3 4" > results/pendulum/mopo.jsonl
#   bash scripts/run_seeds.sh hopper-mopo "0 1 2" datasets/hopper-medium-replay --set algorithm.updates=50000
# Further arguments go to `mbrl train`. An interrupted run continues; what is done is not done again.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: run_seeds.sh EXPERIMENT \"SEEDS\" [DATASET] [ARGUMENTS OF mbrl train]" >&2; exit 2; }
experiment="$1"; seeds="$2"; shift 2
python="${PYTHON:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/python}"
for seed in $seeds; do
    trained="$("$python" -m mbrl.cli train "$@" --config "$experiment" --seed "$seed" --json)"
    run="$("$python" -c 'import json, sys; print(json.load(sys.stdin)["path"])' <<<"$trained")"
    "$python" -m mbrl.cli evaluate "$run" --runs "$(dirname "$(dirname "$run")")" --json | tr -d '\n'
    echo
done
