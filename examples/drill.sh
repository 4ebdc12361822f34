#!/usr/bin/env bash
# Lose the machine and not the data: docs/backup.md, end to end, on a throwaway token.
#
# `make drill` runs it, with .venv ready and SoftHSM installed. Everything it makes is below
# var/drill, which it removes and makes again at each run: `old` is the machine that is lost,
# `backup` what was kept elsewhere, `new` the machine that takes over. It ends 0 only if every step
# did what it says here, the refusals included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

drill=var/drill
old=$drill/old
new=$drill/new
backup=$drill/backup
data=$drill/data
. examples/steps.sh
short_enough "$old"

# A folder with settings for one agent and a home for its token: what a fresh machine has.
machine() {
    mkdir -p "$1/hsm_config"
    cp hsm_config/crypto_policy.toml "$1/hsm_config/"
    # Three keys, and a look at the token each second, so that nobody waits for the drill.
    sed -e '/^\[keys.archive\]/,/^$/d' -e '/^\[keys.mail\]/,/^$/d' \
        -e 's/"archive", "hpke", "mail"/"hpke"/' -e 's/^scan_seconds = .*/scan_seconds = 1.0/' \
        hsm_config/softhsm.toml >"$1/hsm_config/softhsm.toml"
    run softhsm/setup.sh "$1/var/softhsm"
}

say "A machine with a SoftHSM token, its keys, and an agent."
rm -rf "$drill"
mkdir -p "$data"
machine "$old"
run keycustody token init --config "$old/hsm_config/softhsm.toml"
run keycustody keys apply --config "$old/hsm_config/softhsm.toml"
start_agent "$old"

say "It works: a file is encrypted, another one signed."
echo "the first invoice" >"$data/first.txt"
run keycustody encrypt invoices "$data/first.txt" -o "$data/first.kc" --context tenant=42
run keycustody sign release "$data/first.txt" -o "$data/first.sig"
show "keycustody keys show release --pem > $data/release.pem"
keycustody keys show release --pem >"$data/release.pem"

say "Who keeps the journal's heads elsewhere keeps what verifies them, too."
show "keycustody audit key --config $old/hsm_config/softhsm.toml > $data/audit.vkey"
keycustody audit key --config "$old/hsm_config/softhsm.toml" >"$data/audit.vkey"

say "A copy of the token, made today. Keep it in mind: it is from before the revocation."
mkdir -p "$backup"
chmod 700 "$backup"
run tar -C "$old/var/softhsm/tokens" -cpf "$backup/token-before.tar" .
run tar -C "$old/var/softhsm/tokens" -df "$backup/token-before.tar"

say "Later: the keys of the invoices and of releases are rotated, and the one of 'tokens' is revoked."
run keycustody keys rotate invoices
run keycustody keys rotate release
until_current invoices 2
echo "the second invoice" >"$data/second.txt"
run keycustody encrypt invoices "$data/second.txt" -o "$data/second.kc" --context tenant=42
run keycustody keys revoke tokens --version 1 --reason "found in a bug report"
refused KEY_REVOKED keycustody sign tokens "$data/first.txt" -o "$data/refused.sig"

say "The backup: the token first, then the state folder, so that no revocation falls between them."
say "The PINs go elsewhere, the head of the journal to somebody who keeps it."
run tar -C "$old/var/softhsm/tokens" -cpf "$backup/token.tar" .
run tar -C "$old/var/softhsm/tokens" -df "$backup/token.tar"
stop_agent
run tar -C "$old/var/state" -cpf "$backup/state.tar" --exclude=lock .
run cp -p "$old/var/pin" "$drill/pin-in-the-safe"
run cp "$old/var/state/audit.head" "$data/audit.head"

say "The machine is lost, with the token on it."
run rm -r "$old"

say "A new machine: settings and an empty home for a token. The state folder comes first."
machine "$new"
run install -d -m 700 "$new/var/state"
run tar -C "$new/var/state" -xpf "$backup/state.tar"
run tar -C "$new/var/softhsm/tokens" -xpf "$backup/token.tar"
run install -m 600 "$drill/pin-in-the-safe" "$new/var/pin"

say "Before it serves: the journal is whole, and reaches the head that was kept elsewhere."
run keycustody audit verify --config "$new/hsm_config/softhsm.toml" \
    --key "$data/audit.vkey" --expect-head "$data/audit.head"
run keycustody keys plan --config "$new/hsm_config/softhsm.toml"
start_agent "$new"

say "Old files open, under both versions of the key, and old signatures verify."
for name in first second; do
    run keycustody decrypt "$data/$name.kc" -o "$data/$name.back" \
        --key invoices --context tenant=42
    run cmp "$data/$name.txt" "$data/$name.back"
done
run openssl dgst -sha256 -verify "$data/release.pem" -signature "$data/first.sig" "$data/first.txt"
run keycustody verify release "$data/first.txt" "$data/first.sig"

say "What was revoked is revoked."
refused KEY_REVOKED keycustody sign tokens "$data/first.txt" -o "$data/refused.sig"
stop_agent

say "Worse luck: only the copy of the token from before the revocation can be read."
run rm -r "$new/var/softhsm/tokens"
run install -d -m 700 "$new/var/softhsm/tokens"
run tar -C "$new/var/softhsm/tokens" -xpf "$backup/token-before.tar"
start_agent "$new"

say "The token no longer knows of the revocation. The state folder does."
refused KEY_REVOKED keycustody sign tokens "$data/first.txt" -o "$data/refused.sig"
run keycustody decrypt "$data/first.kc" -o "$data/first.again" --key invoices --context tenant=42
run cmp "$data/first.txt" "$data/first.again"

say "Version 2 of the key was made after that copy: what it protects is lost, and that is said."
refused KEY_NOT_FOUND \
    keycustody decrypt "$data/second.kc" -o "$data/second.again" --key invoices --context tenant=42

say "'plan' names it, and a rotation takes the number after it: no two keys ever have one number."
show "keycustody keys plan --config $new/hsm_config/softhsm.toml --detailed-exitcode"
status=0
plan=$(keycustody keys plan --config "$new/hsm_config/softhsm.toml" --detailed-exitcode) ||
    status=$?
printf '%s\n' "$plan"
[[ $status == 2 && $plan == *"missing: invoices.v2"* ]] || fail "the plan misses what is lost."
run keycustody keys apply --config "$new/hsm_config/softhsm.toml"
run keycustody keys rotate invoices --config "$new/hsm_config/softhsm.toml"
until_current invoices 3
run keycustody encrypt invoices "$data/second.txt" -o "$data/third.kc" --context tenant=42

say "The audit chain goes on: old records and new ones, and the head from before the loss in it."
stop_agent
run keycustody audit verify --config "$new/hsm_config/softhsm.toml" \
    --key "$data/audit.vkey" --expect-head "$data/audit.head"

printf '\nAll of it as it should be, in %s s.\n' "$(since "$started")"
