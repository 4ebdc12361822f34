#!/bin/sh
# Makes a virtual environment that holds exactly what a lock file names.
#
#   tools/venv.sh VENV LOCK [BELOW]
#
# BELOW, as in 3.14, is the first Python that the lock file is too old for.
#
# VENV is made anew, so that nothing a former lock file named stays importable. On success the last
# thing written is VENV/.locked, with the folder that VENV was made in: scripts in it name that
# folder and stop working when the clone is moved or mounted elsewhere.
#
# PYTHON chooses the interpreter; otherwise it is the first of python3, python3.11 ... python3.14
# that is new enough.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
venv=$1
lock=$2
below=${3:-4.0}
wanted="Python 3.11 or newer${3:+, but before $3,}"

fail() {
    printf 'keycustody: %s\n' "$*" >&2
    exit 1
}

# Runs it rather than looking for its name: version managers leave names that run nothing.
fits() {
    "$1" -c 'import sys
below = tuple(map(int, sys.argv[1].split(".")))
sys.exit(not (3, 11) <= sys.version_info < below)' "$below" >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14; do
        if fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON does not run as $wanted."
        fi
    done
    found=$(python3 --version 2>/dev/null) || found='not there'
    fail "$wanted is needed, and python3 is $found. Install one (Debian, Ubuntu 24.04: apt-get install python3; Ubuntu 22.04: apt-get install python3.11) or name it, as in: make PYTHON=/path/to/python3.12"
}

# Packages without a wheel for this machine are compiled; PyKCS11 has none but for x86_64.
need_compiler() {
    [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ] && grep -qi '^pykcs11==' "$lock"
}

has_compiler() {
    command -v c++ >/dev/null 2>&1 &&
        [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

if [ -e "$venv" ] && ! [ -w "$venv" ]; then
    fail "$venv belongs to another user (was make run as root here?); remove it, and var/ too: sudo rm -rf .venv .venv-bench .venv-fuzz .venv-proto var/?*"
fi

python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Debian splits both off the interpreter.
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    tools/apt-install.sh "Python's venv module (ensurepip)" "python$version-venv"
if need_compiler && ! has_compiler; then
    tools/apt-install.sh 'A C++ compiler and the headers of Python, to build PyKCS11' \
        g++ "python$version-dev"
fi

printf 'keycustody: installing %s into %s (Python %s); this takes a minute\n' "$lock" "$venv" "$version"
"$python" -m venv --clear -- "$venv"
"$venv/bin/python" -m pip install --quiet --require-hashes -r "$lock"
pwd -P >"$venv/.locked"
