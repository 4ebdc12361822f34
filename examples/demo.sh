#!/usr/bin/env bash
# The main job, end to end, on a throwaway SoftHSM token: provision, serve, sign, encrypt, rotate,
# audit.
#
# `make demo` runs it, with .venv ready and SoftHSM installed. Everything it makes is below
# var/demo, which it removes and makes again at each run. It ends 0 only if every step did what it
# says here, the refusals included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

demo=var/demo
config=$demo/hsm_config/softhsm.toml
# Of the large file; less is for slow disks.
mebibytes=${MEBIBYTES:-256}
. examples/steps.sh

rate() { awk -v m=$mebibytes -v a="$1" -v b="$(date +%s.%N)" \
             'BEGIN { printf "%d MiB in %.2f s: %.0f MiB/s\n", m, b - a, m / (b - a) }'; }
trap 'abandon_agent; rm -f "$demo"/large.*' EXIT
short_enough "$demo"

say "A throwaway token of SoftHSM, with its own configuration, below $demo."
rm -rf "$demo"
mkdir -p "$demo/hsm_config"
cp hsm_config/crypto_policy.toml "$demo/hsm_config/"
# A look at the token each second, so that nobody waits for the demo.
sed 's/^scan_seconds = .*/scan_seconds = 1.0/' hsm_config/softhsm.toml >"$config"
run softhsm/setup.sh "$demo/var/softhsm"

say "Initialise the token through PKCS#11. Its PINs are made up and written to files of mode 0600."
run keycustody token init --config "$config"

say "What would be done to the token? Nothing is, yet."
run keycustody keys plan --config "$config"

say "Make the keys that the settings declare: on the token, not extractable, one purpose each."
run keycustody keys apply --config "$config"

say "Run the agent: the only process that knows the PIN. One socket for each principal."
start_agent "$demo"
run keycustody status

say "What a client may see: the principal 'demo' is whoever can open its socket."
run keycustody keys list
run keycustody keys show release

say "The rules are text. A pipeline judges them without a token, and they explain themselves."
run keycustody check "$config"
run keycustody explain --config "$config" --principal demo --operation unwrap --key invoices \
    --context tenant=42
show "keycustody explain --config $config --principal billing --operation sign --key release"
if keycustody explain --config "$config" --principal billing --operation sign --key release; then
    fail "nobody granted that."
fi

say "Sign a file. Only its hash goes to the agent; the private key never leaves the token."
run cp README.md "$demo/build.tar"
run keycustody sign release "$demo/build.tar" -o "$demo/build.tar.sig"

say "openssl, which knows nothing of keycustody, verifies it with the public key."
show "keycustody keys show release --pem > $demo/release.pem"
keycustody keys show release --pem >"$demo/release.pem"
run openssl dgst -sha256 -verify "$demo/release.pem" \
    -signature "$demo/build.tar.sig" "$demo/build.tar"
run keycustody verify release "$demo/build.tar" "$demo/build.tar.sig"

say "One byte more, and the signature is refused."
show "printf x >> $demo/build.tar"
printf x >>"$demo/build.tar"
refused INVALID_SIGNATURE \
    keycustody verify release "$demo/build.tar" "$demo/build.tar.sig"

say "A certificate signing request by the same key, checked by openssl."
run keycustody keys csr release --subject CN=release.example --dns release.example \
    -o "$demo/release.csr"
run openssl req -in "$demo/release.csr" -verify -noout -subject

say "A large file. The token makes a session key for one context; the data stays in this process."
show "head -c ${mebibytes}M /dev/urandom > $demo/large.bin"
head -c ${mebibytes}M /dev/urandom >"$demo/large.bin"
start=$(date +%s.%N)
run keycustody encrypt invoices "$demo/large.bin" -o "$demo/large.kc" --context tenant=42
printf 'encrypted %s\n' "$(rate "$start")"

say "What the envelope says about itself: no secret, and no agent needed to read it."
run keycustody inspect "$demo/large.kc"

say "Decrypt it, saying which key and context are expected, and compare."
start=$(date +%s.%N)
run keycustody decrypt "$demo/large.kc" -o "$demo/large.back" --key invoices --context tenant=42
printf 'decrypted %s\n' "$(rate "$start")"
run cmp "$demo/large.bin" "$demo/large.back"
echo "The same, byte for byte."

say "The wrong context is refused, and nothing is left behind."
refused UNEXPECTED_CONTEXT \
    keycustody decrypt "$demo/large.kc" -o "$demo/large.wrong" --key invoices --context tenant=43
[[ ! -e $demo/large.wrong ]] || fail "the refused decryption left a file behind."

say "So is an edited envelope: the context is bound to the data."
run cp "$demo/large.kc" "$demo/large.edited"
show "sed -i '1s/tenant/TENANT/' $demo/large.edited"
LC_ALL=C sed -i '1s/tenant/TENANT/' "$demo/large.edited"
refused WRAPPED_KEY_REJECTED \
    keycustody decrypt "$demo/large.edited" -o "$demo/large.wrong" --any
[[ ! -e $demo/large.wrong ]] || fail "the refused decryption left a file behind."

say "Rotate the key. The new version serves when every agent on the token knows it."
run keycustody keys rotate invoices
until_current invoices 2

say "The file still opens, under version 1. Move it to version 2: its header, never its body."
run keycustody rewrap "$demo/large.kc" --key invoices
run keycustody decrypt "$demo/large.kc" -o "$demo/large.back" --key invoices --context tenant=42
run cmp "$demo/large.bin" "$demo/large.back"

say "What still needs version 1? It speaks of the paths that it is given, and of no others."
run keycustody keys usage invoices "$demo/large.kc" --config "$config"

say "Is the token as the settings declare it? Status 0 says: nothing to do, nothing amiss."
run keycustody keys plan --config "$config" --detailed-exitcode

say "All of that is in the audit journal, written before each answer."
run keycustody audit tail -n 3 --config "$config"

say "A key of the token signs where the journal stands. Keep the signed head elsewhere."
show "keycustody audit key --config $config > $demo/audit.vkey"
keycustody audit key --config "$config" >"$demo/audit.vkey"
stop_agent
run cp "$demo/var/state/audit.head" "$demo/kept.head"

say "What the journal shows of itself, and what it shows to somebody who kept that head."
run keycustody audit verify --config "$config"
run keycustody audit verify --config "$config" \
    --key "$demo/audit.vkey" --expect-head "$demo/kept.head"

say "Cut off its end, and the rest still looks whole. The head that was kept does not."
run mkdir "$demo/cut"
for file in "$demo"/var/state/audit-*.jsonl; do
    show "head -n 9 $file > $demo/cut/${file##*/}"
    head -n 9 "$file" >"$demo/cut/${file##*/}"
done
run keycustody audit verify --file "$demo/cut"
refused AUDIT_TRUNCATED \
    keycustody audit verify --file "$demo/cut" --expect-head "$demo/kept.head"

printf '\nAll of it as it should be, in %s s.\n' "$(since "$started")"
