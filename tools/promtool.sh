#!/bin/sh
# Prints the path of a promtool: the system's own, or one unpacked below var/ from Debian's package
# `prometheus`, of which no service is installed or started. Without root, too.
#
# Where there is none to be had, says why and fails.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
if command -v promtool; then
    exit 0
fi
kept=$PWD/var/programs/prometheus
if ! [ -x "$kept/usr/bin/promtool" ]; then
    fail() {
        printf 'keycustody: promtool cannot be had: %s.\n' "$*" >&2
        exit 1
    }
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not Debian or Ubuntu"
    mkdir -p var/programs
    work=$(mktemp -d "$PWD/var/programs/promtool.XXXXXX")
    trap 'rm -rf -- "$work"' EXIT
    # Downloads into the working folder; root would have apt's sandbox user write there.
    (cd "$work" && apt-get -qq -o APT::Sandbox::User= download prometheus >apt.log 2>&1) ||
        { apt-get -qq update >/dev/null 2>&1 || :
          (cd "$work" && apt-get -qq -o APT::Sandbox::User= download prometheus >apt.log 2>&1) ||
            fail "apt-get download prometheus failed"; }
    dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked" || fail "its package does not unpack"
    rm -rf -- "$kept"
    mv -- "$work/unpacked" "$kept" 2>/dev/null || [ -x "$kept/usr/bin/promtool" ] ||
        fail "var/programs cannot be written"
fi
printf '%s\n' "$kept/usr/bin/promtool"
