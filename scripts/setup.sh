#!/usr/bin/env bash
# Make .venv with the pinned packages and b3dist itself. Needs only a Python >= 3.12 somewhere and a package index.
set -euo pipefail
cd "$(dirname "$0")/.."

runs_stack() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  local name candidate
  for name in "${PYTHON:-}" python3.12 python3.13 python3 python; do
    [ -n "$name" ] && candidate=$(command -v "$name" 2>/dev/null) && runs_stack "$candidate" && { echo "$candidate"; return; }
  done
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23]*/bin/python; do
    [ -x "$candidate" ] && runs_stack "$candidate" && { echo "$candidate"; return; }
  done
  return 1
}

if ! python=$(find_python); then
  echo "b3dist needs Python 3.12 or 3.13 with venv, and none was found on PATH or under pyenv: install one, or name it with PYTHON=/path/to/python make ..." >&2
  exit 1
fi
echo "Setting up .venv with $("$python" --version) ($python), once: installing about 7 GB, 1-5 minutes." >&2
rm -rf .venv
"$python" -m venv .venv
uv_pin=$(grep -E '^uv==' constraints.txt)
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv_pin"
# Compiled here, in parallel: where PYTHONDONTWRITEBYTECODE is set nothing else would do it, and each of Ray's dozen
# processes would compile what it imports anew (PyTorch, pandas and Ray: 10 s of CPU instead of 3).
# compat: this folder goes onto the path. With an import hook instead, a folder called b3dist in the current directory (a
# clone, seen from beside it) would be taken for the package by Ray's workers.
VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --compile-bytecode --constraint constraints.txt \
  --config-settings editable_mode=compat --editable '.[dev]'
touch .venv/.ready
