#!/bin/sh
# Everything that must hold before a change lands: lint, format, types, import floors, tests, every recipe for two steps.
# Makes .venv in the checkout where there is none. `sh check.sh slow` runs the slow checks instead.
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1 MPLBACKEND=agg
if [ "${1:-}" = slow ]; then
    exec python -m pytest -m slow -n 2 --dist worksteal
fi
ruff check
ruff format --check
mypy
lint-imports
python -m pytest -n 2 --dist worksteal
