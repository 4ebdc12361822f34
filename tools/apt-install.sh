#!/bin/sh
# Installs Debian packages, with sudo only when that is needed; where there is no apt, says in one
# sentence what is missing and fails.
#
#   tools/apt-install.sh NEED PACKAGE...
#
# NEED is the missing thing in words that make sense on any system. Callers look first whether it is
# there: this script is never run on a machine that has everything.
set -eu

need=$1
shift

fail() {
    printf 'keycustody: %s\n' "$*" >&2
    exit 1
}

if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg >/dev/null 2>&1; then
    fail "$need is missing; this is not Debian or Ubuntu, so please install it with the system's own package manager (on Debian it would be: apt-get install $*)."
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    fail "$need is missing and needs root: run 'apt-get install $*' as root, then try again."
fi

# The caller's umask must not reach files that every user reads (a private one makes Python's own
# modules unreadable), nor its temporary folder apt's helper, which runs as another user.
umask 022
unset TMPDIR

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# apt-get takes the lists as they are; on a bare machine there are none, and old ones name packages
# that the mirror has dropped. Only then is it worth the time to fetch them. A third-party source
# that fails to update is not our business as long as the packages install.
refresh() {
    apt update || printf 'keycustody: apt-get update failed; trying with the lists at hand.\n' >&2
}

known() {
    apt-get --simulate install --no-install-recommends -- "$@" >/dev/null 2>&1
}

printf 'keycustody: installing %s (for: %s)\n' "$*" "$need"
refreshed=
known "$@" || { refresh; refreshed=yes; }
apt install --no-install-recommends -- "$@" && exit 0
[ -n "$refreshed" ] || { refresh; apt install --no-install-recommends -- "$@" && exit 0; }
fail "$need is missing, and apt-get could not install $*; see its messages above."
