#!/usr/bin/env bash
# Chromium and its driver for the tests of the report: there, or installed as root where there is apt-get, or an error.
# AMN_NO_BROWSER=1 leaves these tests out.
. "$(dirname "$0")/help.sh"
set -euo pipefail
[ -z "${AMN_NO_BROWSER:-}" ] || exit 0
there() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }
there && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >&2 || true
fi
there || { echo "error: no chromium and chromedriver for the tests of the report (Debian: apt-get install chromium chromium-driver); AMN_NO_BROWSER=1 leaves these tests out" >&2; exit 1; }
