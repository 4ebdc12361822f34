"""Signed heads: when they are due, what they are made of, and how one can be wrong."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from keycustody.config import AuditSettings
from keycustody.custody.audit import Heads, Journal, records, verifier_of, verify
from keycustody.custody.audit.files import files_of
from keycustody.custody.health import Guarded, Health
from keycustody.custody.keys.key import Version
from keycustody.errors import (
    AuditChainBroken,
    AuditTruncated,
    InvalidSignature,
    KeycustodyError,
    TokenUnavailable,
)
from keycustody.formats import audit as fmt
from keycustody.formats.audit import AuditRecord, Head
from keycustody.formats.state import State
from keycustody.token.api import KeyRef, Outputs, Reply, Request, Sign
from tests.unit.custody.killed_journal import record

DUE = AuditSettings(head_records=5, head_seconds=3600)


class SoftKey:
    """A token that holds one Ed25519 key, in Python."""

    def __init__(self, seed: int = 1) -> None:
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        public = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ref = KeyRef("keycustody:audit.v1", bytes(16), "sign", "ED25519")
        self.version = Version(1, ref, State.ACTIVE, "", public)
        self.away = False

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        if self.away:
            raise TokenUnavailable("away")
        assert isinstance(request, Sign)
        return Outputs([self.key.sign(data) for data in request.inputs])  # type: ignore[return-value]


TOKEN = SoftKey()
KEYS = [verifier_of(TOKEN.version)]


async def write(folder: Path, counts: list[int], rotate_bytes: int = 10**6) -> None:
    """Records in lots of these sizes, each followed by a signed head."""
    async with Journal(folder, rotate_bytes) as journal:
        heads = Heads(journal, TOKEN, lambda: TOKEN.version, DUE)
        for count in counts:
            for _ in range(count):
                await journal.append(record("sign"))
            assert await heads.sign()


def lines(folder: Path) -> list[bytes]:
    return files_of(folder)[-1].path.read_bytes().splitlines()


def rewrite(folder: Path, changed: list[AuditRecord]) -> None:
    """What somebody can write who knows the format and has no key: a chain that fits."""
    head, out = Head(0, fmt.GENESIS), []
    for one in changed:
        line = fmt.encode(replace(one, seq=head.sequence + 1, prev=head.hash))
        head = Head(head.sequence + 1, fmt.line_hash(line))
        out.append(line)
    files_of(folder)[-1].path.write_bytes(b"\n".join([*out, b""]))


def test_heads_cover_all_but_themselves(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [3, 1]))
    report = verify(tmp_path, keys=KEYS)
    assert (report.records, report.heads, report.covered) == (6, 2, 5)
    note = (tmp_path / "audit.head").read_text()
    assert note == list(records(tmp_path))[-1].detail
    assert verify(tmp_path, keys=KEYS, expected=note).covered == 5


def test_an_idle_journal_is_not_signed_again_also_after_a_restart(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [1, 0]))
    asyncio.run(write(tmp_path, [0, 0]))
    assert verify(tmp_path, keys=KEYS).records == 2


@pytest.mark.parametrize(
    ("due", "rotate_bytes", "count"),
    [
        (AuditSettings(head_records=5, head_seconds=3600), 10**6, 5),
        (AuditSettings(head_records=10**6, head_seconds=0.1), 10**6, 1),
        (AuditSettings(head_records=10**6, head_seconds=3600), 1, 2),
    ],
    ids=["records", "seconds", "rotation"],
)
def test_when_a_head_is_due(
    tmp_path: Path, due: AuditSettings, rotate_bytes: int, count: int
) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path, rotate_bytes) as journal:
            heads = Heads(journal, TOKEN, lambda: TOKEN.version, due)
            task = asyncio.create_task(heads.run())
            for _ in range(count):
                await journal.append(record("sign"))
            async with asyncio.timeout(30):
                while heads.standing().covered < count:  # noqa: ASYNC110 - as a user would look
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert verify(tmp_path, keys=KEYS).covered >= count


@pytest.mark.parametrize("turns", range(6))
def test_it_ends_also_if_it_was_just_woken(tmp_path: Path, turns: int) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            heads = Heads(journal, TOKEN, lambda: TOKEN.version, AuditSettings(head_records=1))
            task = asyncio.create_task(heads.run())
            noticed = journal.on_written

            def cancel(after: int) -> None:
                if after:
                    asyncio.get_running_loop().call_soon(cancel, after - 1)
                else:
                    task.cancel()

            def written() -> None:
                journal.on_written = noticed
                noticed()
                cancel(turns)

            journal.on_written = written
            await journal.append(record("sign"))
            ended, _ = await asyncio.wait([task], timeout=5)
            task.cancel()
            assert ended == {task}

    asyncio.run(scenario())


def test_a_token_that_is_away_delays_heads_and_stops_nothing(tmp_path: Path) -> None:
    token = SoftKey()

    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            heads = Heads(journal, token, lambda: token.version, DUE)
            token.away = True
            await journal.append(record("sign"))
            assert not await heads.sign()
            assert any("cannot be signed, 1 records" in finding for finding in heads.findings())
            await journal.append(record("sign"))
            assert heads.standing().unsigned == 2
            token.away = False
            assert await heads.sign()
            assert (list(heads.findings()), heads.standing().unsigned) == ([], 0)

    asyncio.run(scenario())
    assert verify(tmp_path, keys=KEYS).covered == 2


def test_an_audit_key_that_failed_its_self_test_signs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            health = Health(60)
            heads = Heads(journal, Guarded(TOKEN, health), lambda: TOKEN.version, DUE)
            await journal.append(record("sign"))
            health.note(TOKEN.version.ref, 0, "wrong signature")
            assert not await heads.sign()
            assert not heads.able
            (finding,) = heads.findings()
            assert "'keycustody:audit.v1' failed its self-test" in finding
            health.note(TOKEN.version.ref, 1, "")
            assert await heads.sign()
            assert heads.able

    asyncio.run(scenario())
    assert verify(tmp_path, keys=KEYS).covered == 1


def test_the_age_of_a_head_is_that_of_its_signature_also_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            heads = Heads(journal, TOKEN, lambda: TOKEN.version, DUE)
            assert heads.standing().age == 0

    asyncio.run(scenario())
    asyncio.run(write(tmp_path, [1]))
    note = tmp_path / "audit.head"
    note.write_text(re.sub(r"\n20[0-9]{2}-", "\n2001-", note.read_text()))

    async def again() -> None:
        async with Journal(tmp_path) as journal:
            standing = Heads(journal, TOKEN, lambda: TOKEN.version, DUE).standing()
            assert standing.covered == 1
            assert standing.age > 365 * 86_400

    asyncio.run(again())


Attack = Callable[[Path], object]
ATTACKS: dict[str, tuple[Attack, type[KeycustodyError], str]] = {
    "a record changed, the chain made to fit": (
        lambda folder: rewrite(
            folder,
            [replace(one, principal="q") if one.seq == 2 else one for one in records(folder)],
        ),
        AuditChainBroken,
        "line 4: the signed head is not of this journal's record 3",
    ),
    "a record dropped, the chain made to fit": (
        lambda folder: rewrite(folder, [one for one in records(folder) if one.seq != 2]),
        AuditChainBroken,
        "line 3: the signed head",
    ),
    "two records swapped, the chain made to fit": (
        lambda folder: rewrite(
            folder,
            sorted(records(folder), key=lambda one: {1: 2, 2: 1}.get(one.seq, one.seq)),
        ),
        AuditChainBroken,
        "line 2: record 2 is older|line 4: the signed head",
    ),
    "a head that is there twice": (
        lambda folder: rewrite(folder, [*records(folder), list(records(folder))[-1]]),
        AuditChainBroken,
        "is not between the last one",
    ),
    "the end cut off, back to an older head": (
        lambda folder: files_of(folder)[-1].path.write_bytes(b"\n".join([*lines(folder)[:4], b""])),
        AuditTruncated,
        "is of record 5, and the journal ends with 4",
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_what_a_head_shows(tmp_path: Path, what: str) -> None:
    asyncio.run(write(tmp_path, [3, 1]))
    attack, error, message = ATTACKS[what]
    attack(tmp_path)
    with pytest.raises(error, match=message):
        verify(tmp_path, keys=KEYS)


def test_only_a_head_that_was_kept_elsewhere_shows_a_cut_back_to_an_older_one(
    tmp_path: Path,
) -> None:
    asyncio.run(write(tmp_path, [3, 1]))
    kept = (tmp_path / "audit.head").read_text()
    older = list(records(tmp_path))[3].detail
    file = files_of(tmp_path)[-1].path
    file.write_bytes(b"\n".join([*lines(tmp_path)[:4], b""]))
    (tmp_path / "audit.head").write_text(older)
    report = verify(tmp_path, keys=KEYS)
    assert any("--expect-head" in sentence for sentence in report.unknown)
    assert verify(tmp_path, keys=KEYS, expected=older).covered == 3
    with pytest.raises(AuditTruncated, match="The expected head is of record 5"):
        verify(tmp_path, keys=KEYS, expected=kept)


def test_a_head_of_another_journal_by_the_same_key(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
        asyncio.run(write(folder, [3, 1]))
    with pytest.raises(AuditTruncated, match="another journal"):
        verify(ours, keys=KEYS, expected=(other / "audit.head").read_text())
    swapped = list(records(ours))
    swapped[3] = list(records(other))[3]
    rewrite(ours, swapped)
    with pytest.raises(AuditChainBroken, match="line 4: the signed head is not of this journal"):
        verify(ours, keys=KEYS)


def test_a_head_by_another_key(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [1]))
    other = [verifier_of(SoftKey(2).version)]
    with pytest.raises(AuditChainBroken, match=r"audit\.head: The note is not signed"):
        verify(tmp_path, keys=other)
    note = (tmp_path / "audit.head").read_text()
    (tmp_path / "audit.head").unlink()
    with pytest.raises(AuditChainBroken, match="line 2: The note is not signed"):
        verify(tmp_path, keys=other)
    with pytest.raises(InvalidSignature):
        verify(tmp_path, keys=other, expected=note)
    assert verify(tmp_path, keys=other + KEYS).covered == 1


def test_earlier_files_may_be_elsewhere_if_that_is_said(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [2, 2], rotate_bytes=1))
    note = (tmp_path / "audit.head").read_text()
    for file in files_of(tmp_path)[:3]:
        file.path.unlink()
    with pytest.raises(AuditChainBroken, match="--partial"):
        verify(tmp_path, keys=KEYS)
    report = verify(tmp_path, keys=KEYS, expected=note, partial=True)
    assert (report.first, report.records, report.covered) == (4, 3, 5)
    assert report.unknown[0] == "Records 1 to 3 are not here, and were not checked."


def test_a_time_that_goes_back_is_found(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, [3]))
    first, *others = records(tmp_path)
    (tmp_path / "audit.head").unlink()
    rewrite(tmp_path, [replace(first, time="2099-01-01T00:00:00.000000Z"), *others])
    with pytest.raises(AuditChainBroken, match="line 2: record 2 is older"):
        verify(tmp_path)
