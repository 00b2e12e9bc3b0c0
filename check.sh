#!/usr/bin/env bash
# The gate: lint, types, import floors, budgets, tests. CI runs this, and so do you.
#
#   ./check.sh            everything
#   ./check.sh fast       everything but the tests
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python}
# The tests start some two hundred processes. Without kept bytecode each of them would
# compile all that it imports: three seconds of six.
unset PYTHONDONTWRITEBYTECODE

echo "== lint"
"$python" -m ruff format --check .
"$python" -m ruff check .

echo "== types"
"$python" -m basedpyright --pythonpath "$("$python" -c "import sys; print(sys.executable)")"

echo "== import floors"
"$python" -c 'from importlinter.cli import lint_imports_command as lint; lint()'

echo "== docs"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m mkdocs build --strict --quiet --site-dir "$site"

echo "== budgets"
"$python" tests/budgets.py

[ "${1:-}" = fast ] && exit 0
echo "== tests"
"$python" -m pytest -q
