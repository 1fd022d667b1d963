#!/usr/bin/env bash
# Make the environment and run the tests: bash script/test.sh [--all] [pytest's arguments]
#   --all  also the slow ones, the golden ones under other CPU settings (tests/cpu_settings.py), and ruff
# The report is tested in Chromium; AMN_NO_BROWSER=1 leaves these tests out.
set -euo pipefail
cd "$(dirname "$0")/.."
bash script/need_browser.sh
bash script/make_env.sh requirements-test.txt
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # threads that spin for each other crawl on a busy machine
if [ "${1:-}" = --all ]; then
  shift
  .venv/bin/ruff check
  .venv/bin/python -m pytest "$@"
  exec .venv/bin/python -m tests.cpu_settings "$@"
fi
exec .venv/bin/python -m pytest -m 'not slow' "$@"
