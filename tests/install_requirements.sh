#!/bin/bash
# Install what the project's tools need: Debian's packages, and a Python environment in the folder given as $1.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' $(cat requirements/system.txt) 2>&1 | grep -v '^installed ' || true)
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are needed; install them as root: $(tr '\n' ' ' < requirements/system.txt)" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(cat requirements/system.txt) > /dev/null
fi

python=$(command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$python is older than Python 3.11" >&2; exit 1; }
rm -rf "$1"
"$python" -m venv "$1"
"$1/bin/pip" --disable-pip-version-check install --quiet --require-hashes -r requirements/dev.txt
