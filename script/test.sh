#!/usr/bin/env bash
# Make the environment and run the tests: bash script/test.sh [--all] [pytest's arguments]
#   --all  also the slow ones, the golden ones under other CPU settings (tests/cpu_settings.py), and ruff
# The report is tested in Chromium; AMN_NO_BROWSER=1 leaves these tests out. The dense CRF is compared with pydensecrf2 where
# that can be compiled: g++, Python's headers, Python 3.12 at most.
. "$(dirname "$0")/help.sh"
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/need_browser.sh
bash script/make_env.sh requirements-test.txt
if ! command -v g++ >/dev/null; then
  echo "No g++ for pydensecrf2: the tests that compare with it are skipped"
elif ! bash script/make_env.sh requirements-compiled.txt; then
  echo "pydensecrf2 cannot be compiled: the tests that compare with it are skipped"
fi
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # threads that spin for each other crawl on a busy machine
if [ "${1:-}" = --all ]; then
  shift
  .venv/bin/ruff check
  .venv/bin/python -m pytest "$@"
  exec .venv/bin/python -m tests.cpu_settings "$@"
fi
exec .venv/bin/python -m pytest -m 'not slow' "$@"
