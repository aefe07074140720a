#!/usr/bin/env bash
# Makes .venv and installs RisKVA into it, in the versions of constraints.txt; does nothing when that has been done.
# Run by test.sh, check.sh and demo.sh. PYTHON=/path/to/python3.12 chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name names=${PYTHON:-python3.11 python3.12 python3.13 python3 python}
    for name in $names; do
        if is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    echo "setup: RisKVA needs Python 3.11 or newer; none of these is: $names" >&2
    echo "Install it, or name one: PYTHON=/path/to/python3.11 bash $0" >&2
    return 1
}

# What the installation depends on; the folder is part of it, since .venv knows its own path
fingerprint() { { pwd; .venv/bin/python -VV; cat pyproject.toml constraints.txt; } | cksum; }

if ! { [[ -x .venv/bin/python ]] && is_new_enough .venv/bin/python; }; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || {
        echo "setup: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    }
fi

stamp=.venv/installed-from
if [[ ! -f $stamp || $(fingerprint) != $(<"$stamp") ]]; then
    echo "setup: installing RisKVA and its libraries into .venv (some minutes the first time)"
    rm -f "$stamp"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
    fingerprint >"$stamp"
fi
