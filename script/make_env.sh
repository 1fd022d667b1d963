#!/usr/bin/env bash
# Make the environment .venv, or bring it up to date: bash script/make_env.sh [REQUIREMENTS]
#   PYTHON  the interpreter, by name or path (default: the one that .venv was made with, else python3). Where .venv was made
#           with another, it is made anew.
# Which index the wheels come from is pip's to know: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_NO_INDEX, PIP_FIND_LINKS.
# Needs no compiler. What pip said lies in .venv/install.log.
. "$(dirname "$0")/help.sh"
set -euo pipefail
oldest=10 newest=14  # of Python 3: those that the torch of script/constraints.txt has wheels for
fail() { echo "error: $*" >&2; exit 1; }

find_python() { command -v -- "$1" || fail "no $1; PYTHON names an interpreter, 3.$oldest to 3.$newest"; }

python=
if [ -n "${PYTHON:-}" ]; then
  python=$(find_python "$PYTHON")
  case $python in /*) ;; *) python=$PWD/$python ;; esac
fi
cd "$(dirname "$0")/.."
requirements=${1:-requirements.txt}
log=.venv/install.log
if command -v flock >/dev/null; then  # two at once would clear what the other installs
  exec 9< script/make_env.sh
  flock -n 9 || { echo "Waiting for another make_env.sh, or a file system without locks"; flock 9 || true; }
fi

# Minor version, full version and home of an interpreter: .venv/bin/python has those of the one that made it.
identity() {
  "$1" -c 'import sys; v = sys.version_info; print("%d %d %d.%d.%d " % (v[:2] + v[:3]) + getattr(sys, "base_prefix", ""))' 2>/dev/null
}
there=$(identity .venv/bin/python) || there=
if [ -z "$python" ]; then
  if [ -n "$there" ]; then python=.venv/bin/python; else python=$(find_python python3); fi
fi
asked=$(identity "$python") || fail "$python does not run; PYTHON names an interpreter, 3.$oldest to 3.$newest"
read -r major minor version _ <<< "$asked"
if [ "$major" != 3 ] || [ "$minor" -lt $oldest ] || [ "$minor" -gt $newest ]; then
  found=
  for ((i = newest; i >= oldest; i--)); do
    "python3.$i" -c '' 2>/dev/null && found="; here PYTHON=python3.$i will do" && break
  done
  fail "$python is Python $version; torch has wheels for 3.$oldest to 3.$newest$found"
fi

stamp=.venv/installed_$(basename "$requirements" .txt)
wanted=$(cat requirements*.txt script/constraints.txt | cksum)
if [ "$there" = "$asked" ]; then
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0
else
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv and ensurepip to make an environment with (Debian: apt-get install python3.$minor-venv)"
  [ -z "$there" ] || echo "The .venv of Python $(cut -d ' ' -f 3 <<< "$there") gives way to one of $version"
  echo "Making .venv with Python $version"
  said=$("$python" -m venv --clear .venv 2>&1) || fail "$python -m venv .venv: ${said##*$'\n'}"
fi
# An interrupted run, or uv, leaves a .venv without pip.
.venv/bin/python -m pip --version > "$log" 2>&1 || .venv/bin/python -m ensurepip >> "$log" 2>&1 ||
  fail ".venv has no pip and cannot have it ($log): rm -r .venv, then run this again"

echo "Installing $requirements into .venv (Python $version); pip's words: $log"
rm -f "$stamp"
if ! .venv/bin/python -m pip install --disable-pip-version-check -r "$requirements" -c script/constraints.txt >> "$log" 2>&1; then
  said=$(grep '^ERROR: ' "$log" | tail -n 1) || said=$(tail -n 1 "$log")
  if grep -q 'No space left' "$log"; then
    remedy='; a CUDA build of torch takes 3 GB of downloads (PIP_CACHE_DIR, TMPDIR) and 5.3 GB in .venv'
  elif grep -q '(from versions: none)' "$log"; then
    remedy='; no index has it, or none was reached (PIP_INDEX_URL, https_proxy)'
  fi
  fail "pip: ${said#ERROR: }${remedy:-} ($log)"
fi
.venv/bin/python script/check_env.py
echo "$wanted" > "$stamp"
