#!/bin/sh
# Proves a wheel: installs it with its dependencies into an empty virtual environment, with nothing
# else on PATH (no cargo, no compiler), and runs a small program there.
# usage: prove_wheel.sh PYTHON WHEEL
set -eu
python=$1
wheel=$2
here=$(cd "$(dirname "$0")" && pwd)
venv=build/wheel-venv

rm -rf "$venv"
"$python" -m venv "$venv"
venv=$(cd "$venv" && pwd)
PATH="$venv/bin"
export PATH
unset PYTHONPATH VIRTUAL_ENV
pip install --quiet --disable-pip-version-check --only-binary :all: "$wheel"
cd "$venv"
python "$here/wheel_program.py"
