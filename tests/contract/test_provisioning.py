"""What looking at a token and changing it come to: on SoftHSM, and on the model that the tests of
the life of keys use, which is worth something only because it passes the same."""

import hashlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keycustody.errors import InvalidRequest, KeycustodyError, KeyNotFound, KeyNotTrusted
from keycustody.token.api import (
    CreateVersion,
    DestroyObjects,
    Inspect,
    KeyRef,
    Request,
    Scan,
    Scanned,
    SelfTest,
    Witness,
    WriteData,
)
from keycustody.token.attributes import STATE_APPLICATION, amiss, objects_of
from tests.integration.token.opened import opened
from tests.softhsm import SoftHsmToken
from tests.unit.custody.evidence import PROFILE
from tests.unit.custody.model_token import ModelToken

Ask = Callable[[Request[Any]], Any]
_NUMBERS = itertools.count(1)


@pytest.fixture(params=["model", "softhsm2"], scope="module")
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Either token."""
    if request.param == "model":
        yield _answered(ModelToken())
        return
    token: SoftHsmToken = request.getfixturevalue("module_token")
    with opened(token) as pool:
        yield pool.call


def _answered(token: ModelToken) -> Ask:
    def ask(request: Request[Any]) -> Any:
        answer = token.call(request)
        try:
            answer.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("it waits for something")

    return ask


def made(ask: Ask, purpose: str, algorithm: str) -> KeyRef:
    """A new version, with the public key that it said it has."""
    label, id_ = f"key{next(_NUMBERS)}.v1", secrets.token_bytes(16)
    public = ask(CreateVersion(label, id_, purpose, algorithm)).public_key
    pinned = hashlib.sha256(public).digest() if public else b""
    return KeyRef(label, id_, purpose, algorithm, pinned)


def shown(ask: Ask, label: str) -> list[Any]:
    scanned = ask(Scan())
    assert isinstance(scanned, Scanned)
    return [one for one in scanned.objects if one.label == label]


KINDS = pytest.mark.parametrize(
    ("purpose", "algorithm"),
    [("sign", "EC_P256"), ("wrap", "AES_256_HMAC_SHA_256"), ("agree", "EC_P256")],
    ids=["sign", "wrap", "agree"],
)


@KINDS
def test_a_version_is_whole_and_works(ask: Ask, purpose: str, algorithm: str) -> None:
    ref = made(ask, purpose, algorithm)
    objects = shown(ask, ref.label)
    assert amiss(objects_of(purpose, algorithm, PROFILE), ref.id, objects) == []
    public = [one.public_key for one in objects if one.kind == "public"]
    assert [hashlib.sha256(one).digest() for one in public] == [ref.public_sha256] * len(public)
    ask(SelfTest(ref))
    assert len(ask(Inspect(ref.id)).objects) == 2


@KINDS
def test_a_label_or_an_id_is_used_once(ask: Ask, purpose: str, algorithm: str) -> None:
    ref = made(ask, purpose, algorithm)
    before = ask(Scan())
    for label, id_ in ((ref.label, secrets.token_bytes(16)), ("other.v1", ref.id)):
        with pytest.raises(InvalidRequest):
            ask(CreateVersion(label, id_, purpose, algorithm))
    assert ask(Scan()) == before


@KINDS
def test_destruction_takes_one_version_and_leaves_its_records(
    ask: Ask, purpose: str, algorithm: str
) -> None:
    ref, other = made(ask, purpose, algorithm), made(ask, purpose, algorithm)
    ask(WriteData(STATE_APPLICATION, ref.label, b"a record"))
    ask(DestroyObjects(ref.label, other.id))
    ask(DestroyObjects(other.label, ref.id))
    ask(SelfTest(ref))
    ask(DestroyObjects(ref.label, ref.id))
    ask(DestroyObjects(ref.label, ref.id))
    assert [one.value for one in shown(ask, ref.label)] == [b"a record"]
    assert ask(Inspect(ref.id)).objects == []
    with pytest.raises(KeyNotFound):
        ask(SelfTest(ref))
    ask(SelfTest(other))


def test_records_are_added_and_kept_apart(ask: Ask) -> None:
    label = f"key{next(_NUMBERS)}.v1"
    for value in (b"one", b"two", b"one"):
        ask(WriteData(STATE_APPLICATION, label, value))
    found = shown(ask, label)
    assert sorted(one.value for one in found) == [b"one", b"one", b"two"]
    assert {(one.kind, one.application) for one in found} == {("data", STATE_APPLICATION)}


def test_a_wrap_version_has_a_witness(ask: Ask) -> None:
    ref = made(ask, "wrap", "AES_256_HMAC_SHA_256")
    before = ask(Scan())
    assert len(ask(Witness(ref)).witness) == 72
    assert ask(Scan()) == before


@pytest.mark.parametrize("member", ["id", "public_sha256"])
def test_another_key_under_the_label_is_refused(ask: Ask, member: str) -> None:
    ref = made(ask, "sign", "EC_P256")
    wrong: dict[str, bytes] = {"id": ref.id, "public_sha256": ref.public_sha256, member: bytes(32)}
    other = KeyRef(ref.label, wrong["id"], ref.purpose, ref.algorithm, wrong["public_sha256"])
    with pytest.raises((KeyNotTrusted, KeyNotFound)) as caught:
        ask(SelfTest(other))
    assert isinstance(caught.value, KeycustodyError)
