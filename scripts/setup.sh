#!/usr/bin/env bash
# Makes .venv: the packages pinned in requirements.lock, and this project on top of them.
# Needs bash and Python 3.11 or later (PYTHON=... chooses one). Does nothing, and needs no network, when .venv
# is up to date. All messages go to stderr.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.stamp"
log="$venv/setup.log"
torch_index="https://download.pytorch.org/whl/cpu"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3.11}" python3 python; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not Python 3.11 or later. Remedy: name another one, or unset PYTHON."
        fi
    done
    fail "found no Python 3.11 or later. Remedy: install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# What .venv must agree with. The place is part of it: an environment does not survive being moved.
wanted() {
    "$1" - "$root" <<'PY'
import hashlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256()
for name in ("requirements.lock", "pyproject.toml"):
    digest.update((root / name).read_bytes())
print(root, sys.version.split()[0], digest.hexdigest())
PY
}

make_venv() {
    local python="$1"
    say "making $venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$venv" >&2 ||
        fail "could not make a virtual environment. Remedy: install Python's venv module (Debian: python3.11-venv)."
}

install_packages() {
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet -r "$root/requirements.lock" "$@"
}

install_pinned() {
    say "installing the pinned packages; the first time takes some minutes and a download of about 500 MB"
    if install_packages 2>"$log"; then
        return
    fi
    say "the configured package index does not serve every pin; trying again with $torch_index"
    if ! install_packages --extra-index-url "$torch_index" 2>>"$log"; then
        cat "$log" >&2
        fail "pip could not install requirements.lock; its messages stand above."
    fi
}

install_project() {
    say "installing mbrl-offline from $root"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
        --no-index --no-deps --no-build-isolation --editable "$root" 2>"$log" || {
        cat "$log" >&2
        fail "pip could not install the project; its messages stand above."
    }
}

if [ -f "$stamp" ] && is_new_enough "$venv/bin/python" &&
    [ "$(cat "$stamp")" = "$(wanted "$venv/bin/python")" ]; then
    say "$venv is up to date"
    exit 0
fi

if ! { is_new_enough "$venv/bin/python" && [ -f "$venv/.place" ] && [ "$(cat "$venv/.place")" = "$root" ]; }; then
    make_venv "$(find_python)"
    printf '%s\n' "$root" >"$venv/.place"
fi
rm -f "$stamp"
install_pinned
install_project
wanted "$venv/bin/python" >"$stamp"
say "$venv is ready"
