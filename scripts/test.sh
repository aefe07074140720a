#!/usr/bin/env bash
# Runs every test, the slow ones too; sets up first. Arguments go to pytest: scripts/test.sh -m "not slow" tests/recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

# Two workers with a thread each: the models of the tests are too small to gain from more threads. A file's tests stay
# together, since they share what is costly to make.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile "$@"
