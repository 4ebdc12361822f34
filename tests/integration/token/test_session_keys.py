"""Session keys from the client's side: plain cryptography opens what the token made and sealed."""

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from keycustody.errors import DeliveryRejected, InvalidPoint, KeyNotTrusted, KeyPurpose
from keycustody.formats import context as contexts
from keycustody.formats.delivery import open_sealed, public_point
from keycustody.token.api import (
    Delivered,
    Fault,
    GenerateSessionKey,
    Recipient,
    RewrapSessionKeys,
    Scan,
    Scanned,
    SessionKey,
    UnwrapSessionKeys,
)
from tests.integration.token.opened import Made, OpenedPool

CONTEXT = contexts.digest(contexts.encode({"tenant": "a"}))
OTHER = contexts.digest(contexts.encode({"tenant": "b"}))


@dataclass(frozen=True)
class Keys:
    """A `wrap` key, the agent's delivery key, and a client's ephemeral key."""

    wrap: Made
    delivery: Made
    ephemeral: ec.EllipticCurvePrivateKey

    @property
    def sealed(self) -> Recipient:
        return Recipient(public_point(self.ephemeral), self.delivery.ref)

    def generate(self, recipient: Recipient) -> GenerateSessionKey:
        return GenerateSessionKey(self.wrap.ref, self.wrap.name, 1, 1, CONTEXT, recipient)

    def unwrap(self, wrapped: list[bytes], recipient: Recipient) -> UnwrapSessionKeys:
        return UnwrapSessionKeys(self.wrap.ref, self.wrap.name, 1, 1, CONTEXT, wrapped, recipient)

    def open(self, wrapped: bytes, delivered: Delivered) -> bytes:
        assert delivered.plain == b""
        return open_sealed(
            self.ephemeral,
            delivered.sealed,
            delivery_point=delivered.delivery_point,
            client_point=public_point(self.ephemeral),
            suite=1,
            name=self.wrap.name,
            version=1,
            context_hash=CONTEXT,
            wrapped=wrapped,
        )


@pytest.fixture(scope="module")
def keys(token: OpenedPool) -> Keys:
    return Keys(
        token.make("wrap", "AES_256_HMAC_SHA_256"),
        token.make("agree", "EC_P256", "keycustody:delivery.v1"),
        ec.generate_private_key(ec.SECP256R1()),
    )


@pytest.fixture(scope="module")
def made(token: OpenedPool, keys: Keys) -> SessionKey:
    return token.call(keys.generate(keys.sealed))


def test_a_client_opens_what_was_sealed_for_it(keys: Keys, made: SessionKey) -> None:
    assert len(made.wrapped) == 72
    assert len(keys.open(made.wrapped, made.delivered)) == 32


def test_unwrapping_gives_the_same_key_again(
    token: OpenedPool, keys: Keys, made: SessionKey
) -> None:
    first = keys.open(made.wrapped, made.delivered)
    second = token.call(keys.generate(keys.sealed))
    answers = token.call(keys.unwrap([made.wrapped, second.wrapped], keys.sealed)).items
    opened = [
        keys.open(wrapped, answer)
        for wrapped, answer in zip((made.wrapped, second.wrapped), answers, strict=True)
        if isinstance(answer, Delivered)
    ]
    assert opened == [first, keys.open(second.wrapped, second.delivered)]
    assert opened[0] != opened[1]


def test_an_answer_opens_for_nobody_else(keys: Keys, made: SessionKey) -> None:
    thief = replace_ephemeral(keys)
    with pytest.raises(DeliveryRejected):
        thief.open(made.wrapped, made.delivered)


def replace_ephemeral(keys: Keys) -> Keys:
    return Keys(keys.wrap, keys.delivery, ec.generate_private_key(ec.SECP256R1()))


def test_an_answer_cannot_be_spliced_onto_another(token: OpenedPool, keys: Keys) -> None:
    one, two = (token.call(keys.generate(keys.sealed)) for _ in range(2))
    with pytest.raises(DeliveryRejected):
        keys.open(one.wrapped, two.delivered)


def test_plain_delivery_gives_the_same_key(token: OpenedPool, keys: Keys, made: SessionKey) -> None:
    plain = replace(keys.sealed, delivery=None)
    (answer,) = token.call(keys.unwrap([made.wrapped], plain)).items
    assert isinstance(answer, Delivered)
    assert answer.plain == keys.open(made.wrapped, made.delivered)
    new = token.call(keys.generate(plain))
    (again,) = token.call(keys.unwrap([new.wrapped], plain)).items
    assert isinstance(again, Delivered)
    assert (new.delivered.plain, new.delivered.sealed) == (again.plain, b"")


def test_whatever_is_wrong_with_a_wrapped_key_is_refused_alike(
    token: OpenedPool, keys: Keys, made: SessionKey
) -> None:
    good = made.wrapped
    flipped = [
        good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        for position in (0, 7, 8, 39, 40, 71)
    ]
    sizes = [b"", good[:40], good[:71], good + b"\0", bytes(72), os.urandom(72)]
    elsewhere = token.make("wrap", "AES_256_HMAC_SHA_256")
    other = Keys(elsewhere, keys.delivery, keys.ephemeral)
    foreign = token.call(other.generate(keys.sealed)).wrapped
    swapped = [foreign, good[:40] + foreign[40:], foreign[:40] + good[40:]]

    request = keys.unwrap([*flipped, *sizes, *swapped, good], keys.sealed)
    results = token.call(request).items
    assert isinstance(results[-1], Delivered)
    wrong_context = token.call(replace(keys.unwrap([good], keys.sealed), context_hash=OTHER)).items
    wrong_key = token.call(other.unwrap([good], keys.sealed)).items
    refused = {repr(one) for one in (*results[:-1], *wrong_context, *wrong_key)}
    assert refused == {
        repr(
            Fault(
                "WRAPPED_KEY_REJECTED",
                "The wrapped key was not made by this key version for this context.",
            )
        )
    }


def test_a_version_is_bound_too(token: OpenedPool, keys: Keys) -> None:
    first = token.make("wrap", "AES_256_HMAC_SHA_256", "versions.v1")
    second = token.make("wrap", "AES_256_HMAC_SHA_256", "versions.v2")
    wrapped = token.call(Keys(first, keys.delivery, keys.ephemeral).generate(keys.sealed)).wrapped
    request = UnwrapSessionKeys(second.ref, "versions", 2, 1, CONTEXT, [wrapped], keys.sealed)
    (answer,) = token.call(request).items
    assert isinstance(answer, Fault)
    assert answer.code == "WRAPPED_KEY_REJECTED"


@dataclass(frozen=True)
class Versions:
    """Two versions of one wrap key, and a client."""

    first: Made
    second: Made
    delivery: Made
    ephemeral: ec.EllipticCurvePrivateKey

    @property
    def to(self) -> Recipient:
        return Recipient(public_point(self.ephemeral), self.delivery.ref)

    def generate(self) -> GenerateSessionKey:
        return GenerateSessionKey(self.first.ref, self.first.name, 1, 1, CONTEXT, self.to)

    def rewrap(self, *wrapped: bytes) -> RewrapSessionKeys:
        return RewrapSessionKeys(
            self.first.ref, self.second.ref, self.first.name, 1, 2, 1, CONTEXT, list(wrapped)
        )

    def open(self, token: OpenedPool, version: int, wrapped: bytes) -> bytes | Fault:
        """The session key, by an unwrap under that version."""
        made = self.first if version == 1 else self.second
        request = UnwrapSessionKeys(made.ref, made.name, version, 1, CONTEXT, [wrapped], self.to)
        (answer,) = token.call(request).items
        if isinstance(answer, Fault):
            return answer
        return open_sealed(
            self.ephemeral,
            answer.sealed,
            delivery_point=answer.delivery_point,
            client_point=public_point(self.ephemeral),
            suite=1,
            name=made.name,
            version=version,
            context_hash=CONTEXT,
            wrapped=wrapped,
        )


@pytest.fixture(scope="module")
def versions(token: OpenedPool, keys: Keys) -> Versions:
    return Versions(
        token.make("wrap", "AES_256_HMAC_SHA_256", "moving.v1"),
        token.make("wrap", "AES_256_HMAC_SHA_256", "moving.v2"),
        keys.delivery,
        keys.ephemeral,
    )


def test_a_rewrapped_key_is_the_same_key_under_the_other_version(
    token: OpenedPool, versions: Versions
) -> None:
    old = [token.call(versions.generate()).wrapped for _ in range(3)]
    new = [one for one in token.call(versions.rewrap(*old)).items if isinstance(one, bytes)]
    assert len(set(new)) == 3
    for before, after in zip(old, new, strict=True):
        assert versions.open(token, 2, after) == versions.open(token, 1, before)
        assert isinstance(versions.open(token, 1, after), Fault)
        assert isinstance(versions.open(token, 2, before), Fault)
    assert token.call(versions.rewrap(*old)).items == new


def test_rewrapping_under_the_same_version_gives_the_same_bytes(
    token: OpenedPool, versions: Versions
) -> None:
    wrapped = token.call(versions.generate()).wrapped
    same = replace(versions.rewrap(wrapped), target=versions.first.ref, target_version=1)
    assert token.call(same).items == [wrapped]


def test_only_what_verifies_is_rewrapped(token: OpenedPool, versions: Versions) -> None:
    good = token.call(versions.generate()).wrapped
    bad = [b"", good[:71], good + b"\0", bytes(72), good[:40] + bytes(32), bytes(40) + good[40:]]
    results = token.call(versions.rewrap(*bad, good)).items
    assert isinstance(results[-1], bytes)
    elsewhere = replace(versions.rewrap(good), context_hash=OTHER)
    refused = {repr(one) for one in (*results[:-1], *token.call(elsewhere).items)}
    assert len(refused) == 1
    assert "WRAPPED_KEY_REJECTED" in refused.pop()


@pytest.mark.parametrize(
    "change", [{"name": "another"}, {"version": 2}, {"target_version": 1}, {"target_version": 3}]
)
def test_rewrapping_binds_to_the_version_that_wraps(
    token: OpenedPool, versions: Versions, change: dict[str, str | int]
) -> None:
    request = replace(versions.rewrap(bytes(72)), **change)
    with pytest.raises(KeyNotTrusted):
        token.call(request)


def test_rewrapping_leaves_no_session_object(token: OpenedPool, versions: Versions) -> None:
    wrapped = token.call(versions.generate()).wrapped
    token.everywhere(versions.rewrap(wrapped, b"", bytes(72)))
    for seen in token.everywhere(Scan()):
        assert isinstance(seen, Scanned)
        assert all(o.attributes["TOKEN"] for o in seen.objects if o.kind != "data")


@pytest.mark.parametrize("change", [{"name": "another"}, {"version": 2}])
def test_a_key_serves_only_under_its_own_name_and_version(
    token: OpenedPool, keys: Keys, change: dict[str, str | int]
) -> None:
    request = replace(keys.generate(keys.sealed), **change)
    with pytest.raises(KeyNotTrusted):
        token.call(request)


def test_a_bad_client_point_never_reaches_the_token(token: OpenedPool, keys: Keys) -> None:
    good = public_point(keys.ephemeral)
    for bad in (b"", bytes(65), good[:-1] + bytes([good[-1] ^ 1]), good[:33]):
        request = keys.generate(replace(keys.sealed, client_point=bad))
        with pytest.raises(InvalidPoint):
            token.call(request)


def test_only_an_agreement_key_delivers_and_only_a_wrap_key_wraps(
    token: OpenedPool, keys: Keys
) -> None:
    with pytest.raises(KeyPurpose):
        token.call(keys.generate(replace(keys.sealed, delivery=keys.wrap.ref)))
    request = replace(keys.generate(keys.sealed), key=keys.delivery.ref)
    with pytest.raises(KeyPurpose):
        token.call(request)


def test_no_session_object_is_left_behind(token: OpenedPool, keys: Keys) -> None:
    # Each worker sees its own session objects only.
    wrapped = token.call(keys.generate(keys.sealed)).wrapped
    token.everywhere(keys.unwrap([wrapped, b"", bytes(72)], keys.sealed))
    for seen in token.everywhere(Scan()):
        assert isinstance(seen, Scanned)
        assert all(o.attributes["TOKEN"] for o in seen.objects if o.kind != "data")


def _regions(pid: int) -> list[tuple[int, int]]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    found = (re.match(r"([0-9a-f]+)-([0-9a-f]+) r.*?(\S*)$", line) for line in lines)
    return [
        (int(match[1], 16), int(match[2], 16))
        for match in found
        if match and match[3] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]")
    ]


def _hits(pid: int, wanted: list[bytes]) -> int:
    hits = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in _regions(pid):
            memory.seek(start)
            try:
                content = memory.read(end - start)
            except OSError:
                continue
            hits += sum(one in content for one in wanted)
    return hits


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read a worker's memory")
def test_no_worker_keeps_a_session_key_that_it_sealed(token: OpenedPool, keys: Keys) -> None:
    made = [token.call(keys.generate(keys.sealed)) for _ in range(40)]
    wrapped = [one.wrapped for one in made]
    token.everywhere(keys.unwrap(wrapped, keys.sealed))
    opened = [keys.open(one.wrapped, one.delivered) for one in made]
    # That the scan sees anything at all: the labels of the keys in use are there.
    markers = [keys.wrap.ref.label.encode()]
    assert all(_hits(pid, markers) for pid in token.pool.pids)
    assert [_hits(pid, opened) for pid in token.pool.pids] == [0, 0]
    # Half a key would do as well: the later half is looked for apart.
    halves = list(itertools.chain.from_iterable((key[:16], key[16:]) for key in opened))
    assert [_hits(pid, halves) for pid in token.pool.pids] == [0, 0]
