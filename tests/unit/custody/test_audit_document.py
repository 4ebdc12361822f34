"""docs/audit.md has every member, and its example is a journal."""

import re
from pathlib import Path

from keycustody.custody.audit import verify
from keycustody.formats.audit import AuditRecord
from keycustody.formats.signed_note import VerifierKey
from tests.integration.command import PROJECT

DOCUMENT = (PROJECT / "docs" / "audit.md").read_text()


def test_every_member_is_described_in_its_order() -> None:
    rows = re.findall(r"^\| (`.+?) \|", DOCUMENT, re.MULTILINE)
    members = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert tuple(members) == AuditRecord.__struct_fields__


def test_the_example_is_a_journal_with_a_signed_head(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    (note,) = re.findall(r"```\n(keycustody\.audit\.v1\n.*?)```", DOCUMENT, re.DOTALL)
    (key,) = re.findall(r"`(keycustody/audit\+\S+)`", DOCUMENT)
    (tmp_path / "audit-00000000000000000001.jsonl").write_text(lines)
    report = verify(tmp_path, keys=[VerifierKey.decode(key)], expected=note)
    assert (report.records, report.covered) == (3, 2)
