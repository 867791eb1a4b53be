#!/usr/bin/env bash
# Builds the documentation into build/site, strictly: a broken link, anchor or reference is an error.
# `docs.sh serve` shows it at http://127.0.0.1:8000 while you write. Needs setup.sh before.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export NO_MKDOCS_2_WARNING=1
if [ "${1:-build}" = serve ]; then
    exec .venv/bin/python -m mkdocs serve
fi
.venv/bin/python -m mkdocs build --strict --quiet
echo "docs: build/site/index.html"
