#!/usr/bin/env bash
# Sets everything up, then runs the main job: `mbrl demo`. Arguments go to `mbrl demo`; results go to ./demo.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
echo "demo: mbrl demo $*" >&2
exec "$root/.venv/bin/python" -m mbrl.cli demo "$@"
