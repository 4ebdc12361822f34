#!/bin/sh
# Installs SoftHSM2 by apt, unless it is there already; elsewhere says what to install and fails.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if command -v softhsm2-util >/dev/null 2>&1 && "$here/module.sh" >/dev/null; then
    exit 0
fi
exec "$here/../tools/apt-install.sh" 'SoftHSM2 (softhsm2-util and libsofthsm2.so)' softhsm2
