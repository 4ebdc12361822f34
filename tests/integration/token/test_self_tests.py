"""Self-tests on a real token whose stored keys were changed under it."""

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from keycustody.algorithms import KEYS
from keycustody.errors import KeyNotFound, KeyNotTrusted
from keycustody.token.api import Done, SelfTest, Witness
from tests.integration.token import softhsm_objects as store
from tests.integration.token.opened import Made, OpenedPool

#: Without the sizes of RSA that take seconds to generate and pass through the same code.
_KINDS = [
    (purpose.value, key.name)
    for key in KEYS.values()
    for purpose in sorted(key.purposes)
    if key.name not in {"RSA_3072", "RSA_4096"}
]


def tokens(token: OpenedPool) -> Path:
    return token.token.conf.parent / "tokens"


@pytest.mark.parametrize(("purpose", "algorithm"), _KINDS)
def test_a_key_as_it_was_made_passes(token: OpenedPool, purpose: str, algorithm: str) -> None:
    made = token.make(purpose, algorithm)
    assert token.everywhere(SelfTest(made.ref)) == [Done()] * 8


@pytest.mark.parametrize("purpose", ["sign", "agree"])
def test_a_private_key_that_is_another_fails(fresh: OpenedPool, purpose: str) -> None:
    made, other = (fresh.make(purpose, "EC_P256") for _ in range(2))
    files = store.objects(tokens(fresh), store.PRIVATE_KEY, store.EC)
    assert len(files) == 2
    # Each value in the other's place: whatever file is whose, both keys are wrong now.
    files[0].replace(store.CKA_VALUE, files[1].value(store.CKA_VALUE))
    files[1].replace(store.CKA_VALUE, files[0].value(store.CKA_VALUE))
    for key in (made, other):
        for answer in fresh.everywhere(SelfTest(key.ref)):
            assert isinstance(answer, KeyNotTrusted), answer
    for file in files:
        file.restore()
    assert fresh.everywhere(SelfTest(made.ref)) == [Done()] * 8


def test_a_wrapping_key_that_is_another_fails(fresh: OpenedPool) -> None:
    made, other = (_witnessed(fresh) for _ in range(2))
    files = store.objects(tokens(fresh), store.SECRET_KEY, store.AES)
    assert len(files) == 2
    files[0].replace(store.CKA_VALUE, files[1].value(store.CKA_VALUE))
    files[1].replace(store.CKA_VALUE, files[0].value(store.CKA_VALUE))
    for key in (made, other):
        with pytest.raises(KeyNotTrusted):
            fresh.call(SelfTest(key.ref))
    for file in files:
        file.restore()
    assert fresh.call(SelfTest(made.ref)) == Done()


def test_a_key_that_is_gone_fails(fresh: OpenedPool) -> None:
    made = fresh.make("sign", "EC_P256")
    (file,) = store.objects(tokens(fresh), store.PRIVATE_KEY, store.EC)
    file.path.unlink()
    with pytest.raises((KeyNotTrusted, KeyNotFound)):
        fresh.call(SelfTest(made.ref))


def _witnessed(token: OpenedPool) -> Made:
    made = token.make("wrap", "AES_256_HMAC_SHA_256")
    witness = token.call(Witness(made.ref)).witness
    return replace(made, ref=structs.replace(made.ref, witness=witness))
