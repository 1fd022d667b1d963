#!/usr/bin/env bash
# For the scripts beside it: run_sample.py with a preset of script/presets. usage: bash script/run.sh PRESET [ROOT] [flags]
#   ROOT  --data_root; every path is the caller's, wherever the script lies. PYTHON names the interpreter (else .venv's, else
#         python3)
. "$(dirname "$0")/help.sh"
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$([ -x "$here/.venv/bin/python" ] && echo "$here/.venv/bin/python" || echo python3)}
words=(--preset "$1")
shift
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then words+=(--data_root "$1"); shift; fi
exec "$python" "$here/run_sample.py" "${words[@]}" "$@"
