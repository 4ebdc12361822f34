#!/bin/sh
# Makes DIR a home for SoftHSM2 tokens: DIR/tokens and the DIR/softhsm2.conf that names it.
#
#   softhsm/setup.sh DIR
#
# Run it as often as you like: tokens are never removed, and the conf follows when DIR was moved.
# It creates no token; `keycustody token init` does.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

fail() {
    printf 'keycustody: %s\n' "$*" >&2
    exit 1
}

[ $# -eq 1 ] && [ -n "$1" ] || fail 'usage: softhsm/setup.sh DIR'

"$here/install.sh"

mkdir -p -- "$1"
dir=$(CDPATH='' cd -- "$1" && pwd -P)
case $dir in
*[#=]* | *'
'*) fail "SoftHSM2's configuration cannot name a path with '#', '=' or a line break: $dir" ;;
esac

mkdir -p -m 0700 -- "$dir/tokens"
chmod 0700 -- "$dir/tokens" || fail "$dir/tokens belongs to another user."

# Written beside it and renamed: a program that starts meanwhile sees the old conf or the new one.
new=$dir/softhsm2.conf.$$
trap 'rm -f -- "$new"' EXIT
while IFS= read -r line; do
    case $line in
    *@TOKENS@*) printf '%s%s%s\n' "${line%%@TOKENS@*}" "$dir/tokens" "${line#*@TOKENS@}" ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$here/softhsm2.conf.in" >"$new"
mv -f -- "$new" "$dir/softhsm2.conf"

printf 'keycustody: SoftHSM2 is ready: SOFTHSM2_CONF=%s, module %s\n' \
    "$dir/softhsm2.conf" "$("$here/module.sh")"
