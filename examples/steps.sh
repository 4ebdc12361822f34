# What the scripts of this folder have in common: how they speak, how they fail, and one agent.
# Sourced, by bash, in the project's folder.

[[ -x .venv/bin/keycustody ]] || { echo "run it with make, which makes .venv first." >&2; exit 1; }
case $(uname -s) in Linux) ;; *) echo "this needs Linux." >&2; exit 1 ;; esac
PATH=$PWD/.venv/bin:$PATH

agent=
started=$(date +%s.%N)
bold= plain=
[[ -t 1 ]] && bold=$'\e[1m' plain=$'\e[0m'

say()  { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '\n%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
show() { printf '$ %s\n' "$*"; }
run()  { show "$*"; "$@"; }

# Seconds since $1.
since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'; }

# Run a command that must fail with the code $1.
refused() {
    local code=$1 answer
    shift
    show "$*"
    if answer=$("$@" 2>&1); then fail "that should have been refused with $code."; fi
    printf '%s\n' "$answer"
    [[ $answer == *"[$code]"* ]] || fail "that was refused, and not with $code."
}

# The sockets of the folder $1 must fit into what Linux takes.
short_enough() {
    local path=$PWD/$1/var/run/admin/agent.sock
    if [[ ${#path} -gt 107 ]]; then
        fail "a socket's path may have 107 bytes, and here it would have ${#path}: clone into a" \
             "shorter folder."
    fi
}

# Run an agent in the folder $1 and wait until it answers there.
start_agent() {
    local folder=$1 attempt
    show "keycustody serve --config $folder/hsm_config/softhsm.toml &"
    keycustody serve --config "$folder/hsm_config/softhsm.toml" >"$folder/agent.log" 2>&1 &
    agent=$!
    export KEYCUSTODY_SOCKET=$PWD/$folder/var/run/demo/agent.sock
    show "export KEYCUSTODY_SOCKET=$folder/var/run/demo/agent.sock"
    for attempt in {1..240}; do
        if keycustody status >/dev/null 2>"$folder/status.log"; then return; fi
        if ! kill -0 "$agent" 2>/dev/null || [[ $attempt == 240 ]]; then
            cat "$folder/agent.log" "$folder/status.log" >&2
            fail "the agent did not come up; what it said is above."
        fi
        sleep 0.25
    done
}

# Wait until the agent on duty uses version $2 of the key $1 for what is new.
until_current() {
    local attempt
    show "keycustody keys show $1    # until version $2 is current"
    for attempt in {1..120}; do
        if keycustody keys show "$1" | grep "^current version  *$2\$" >/dev/null; then return; fi
        sleep 0.25
    done
    keycustody keys show "$1" >&2
    fail "version $2 of $1 does not become current."
}

# Stop it, and be told if it does not stop cleanly.
stop_agent() {
    run kill "$agent"
    wait "$agent" || fail "the agent did not stop cleanly."
    agent=
}

# However the script ends, nothing goes on running.
abandon_agent() {
    if [[ -n $agent ]]; then
        kill "$agent" 2>/dev/null || true
        wait "$agent" 2>/dev/null || true
    fi
}
trap abandon_agent EXIT
