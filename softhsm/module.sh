#!/bin/sh
# Prints the path of SoftHSM2's PKCS#11 module, or fails without a word.
#
# SOFTHSM2_MODULE, when set, is believed.
set -eu

for module in "${SOFTHSM2_MODULE:-}" \
    /usr/lib/softhsm/libsofthsm2.so \
    /usr/lib/*/softhsm/libsofthsm2.so \
    /usr/lib64/softhsm/libsofthsm2.so \
    /usr/lib64/pkcs11/libsofthsm2.so \
    /usr/local/lib/softhsm/libsofthsm2.so \
    /opt/homebrew/lib/softhsm/libsofthsm2.so; do
    if [ -n "$module" ] && [ -e "$module" ]; then
        printf '%s\n' "$module"
        exit 0
    fi
done
exit 1
