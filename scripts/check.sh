#!/usr/bin/env bash
# Format, lint, types and import directions, in that order; stops at the first that fails. Sets up first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

run() {
    echo "\$ $*"
    ".venv/bin/$1" "${@:2}"
}
run ruff format --check .
run ruff check .
run mypy --strict riskva evaluation
run lint-imports
