"""The token's delivery key, from `status` to `encrypt` and `decrypt`."""

import json
from pathlib import Path

from tests.integration.command import Command, refused

CONTEXT = ("--context", "tenant=42")


def test_the_key_that_status_shows_is_the_one_to_give(keycustody: Command, tmp_path: Path) -> None:
    shown = json.loads(keycustody.ok("status", "--json"))["token"]["delivery_key"]
    assert shown in keycustody.ok("status").decode()
    pinned = ("--delivery-key", "00" * 32, "--delivery-key", shown)

    box = keycustody.ok("encrypt", "invoices", "-", "-o", "-", *CONTEXT, *pinned, stdin=b"x")
    assert keycustody.ok("decrypt", "-", "-o", "-", "--any", *pinned, stdin=box) == b"x"

    wrong = ("--delivery-key", "00" * 32)
    refused(keycustody("encrypt", "invoices", "-", "-o", "-", *wrong), "TOKEN_NOT_TRUSTED")
    done = keycustody(
        "decrypt", "-", "-o", "-", "--any", stdin=box, KEYCUSTODY_DELIVERY_KEY=wrong[1]
    )
    refused(done, "TOKEN_NOT_TRUSTED")
    assert done.returncode == 3


def test_a_token_is_remembered_and_another_refused(keycustody: Command, tmp_path: Path) -> None:
    known = tmp_path / "known"
    remember = ("encrypt", "invoices", "-", "-o", "-", "--known-tokens", known)
    keycustody.ok(*remember)
    keycustody.ok(*remember)
    (line,) = known.read_text().splitlines()
    known.write_text("f" * 64 + line[64:] + "\n")
    refused(keycustody(*remember), "TOKEN_NOT_TRUSTED")
