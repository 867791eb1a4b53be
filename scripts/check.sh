#!/usr/bin/env bash
# Checks that need no test run: `check.sh` runs all, `check.sh types imports` the named ones. Needs setup.sh before.
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bin="$root/.venv/bin"
cd "$root" || exit 1

check() {
    case "$1" in
        lint) "$bin/python" -m ruff check . ;;
        format) "$bin/python" -m ruff format --check . ;;
        types) "$bin/python" -m basedpyright --pythonpath "$bin/python" ;;
        imports) "$bin/python" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' ;;
        tables) "$bin/python" scripts/algorithm_table.py --check ;;
        sizes) "$bin/python" scripts/check_sizes.py ;;
        docs) bash scripts/docs.sh ;;
        *) echo "check: unknown check $1; there are lint, format, types, imports, tables, sizes, docs" >&2; return 2 ;;
    esac
}

failed=""
for name in "${@:-lint format types imports tables sizes docs}"; do
    for one in $name; do
        echo "check: $one"
        check "$one" || failed="$failed $one"
    done
done
if [ -n "$failed" ]; then
    echo "check: failed:$failed" >&2
    exit 1
fi
