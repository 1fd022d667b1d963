#!/usr/bin/env bash
# Make the environment .venv, or bring it up to date: bash script/make_env.sh [REQUIREMENTS]
# PYTHON names the interpreter to make it with (3.10 or newer; default python3).
set -euo pipefail
case ${PYTHON:-} in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac  # a path is the caller's
cd "$(dirname "$0")/.."
requirements=${1:-requirements.txt}
python=${PYTHON:-python3}
stamp=.venv/installed_$(basename "$requirements" .txt)
wanted=$(cat requirements*.txt script/constraints.txt | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $python is older than Python 3.10; set PYTHON" >&2; exit 1; }
[ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "error: $python cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c script/constraints.txt
echo "$wanted" > "$stamp"
