"""One row says how an algorithm may be used, and changing that row alone changes it everywhere."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from keycustody import algorithms
from keycustody.algorithms import DECRYPTIONS, KEYS, SIGNATURES, Purpose, Status
from keycustody.config import KeySettings, Policy
from keycustody.custody.access.policy import NEW_USES, judge
from keycustody.custody.keys.key import algorithms_of
from keycustody.errors import PolicyViolation
from tests.unit.custody.evidence import PROFILE

NOW = datetime(2026, 6, 15, tzinfo=UTC)
_USE = {
    Purpose.SIGN: ("sign",),
    Purpose.AGREE: ("agree",),
    Purpose.DECRYPT: ("decrypt",),
    Purpose.WRAP: ("generate", "unwrap", "rewrap"),
}


def permitted(declared: KeySettings, use: str, algorithm: str = "") -> bool:
    try:
        judge({"k": declared}, None)["k"].check_request(use, algorithm, NOW)
    except PolicyViolation:
        return False
    return True


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("name", KEYS)
def test_the_status_of_a_key(monkeypatch: pytest.MonkeyPatch, name: str, status: Status) -> None:
    monkeypatch.setitem(KEYS, name, replace(KEYS[name], status=status))
    for purpose in KEYS[name].purposes:
        if status is Status.FORBIDDEN:
            with pytest.raises(ValueError, match="is forbidden"):
                KeySettings(purpose=purpose, algorithm=name)
            table: dict[str, Any] = {"keys": (name,), "lifetime_days": 1}
            if purpose in (Purpose.SIGN, Purpose.DECRYPT):
                table["algorithms"] = ()
            with pytest.raises(ValueError, match="cannot hold"):
                Policy.model_validate({purpose.value: table})
            continue
        declared = KeySettings(purpose=purpose, algorithm=name)
        for use in _USE[purpose]:
            assert permitted(declared, use) is (status is not Status.LEGACY or use not in NEW_USES)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("name", SIGNATURES)
def test_the_status_of_a_signature(
    monkeypatch: pytest.MonkeyPatch, name: str, status: Status
) -> None:
    monkeypatch.setitem(SIGNATURES, name, replace(SIGNATURES[name], status=status))
    key = next(k for k in KEYS.values() if SIGNATURES[name] in algorithms.signatures_for(k))
    declared = KeySettings(purpose=Purpose.SIGN, algorithm=key.name)

    assert permitted(declared, "sign", name) is status.protects
    assert (name in algorithms_of(declared, PROFILE)) is status.protects
    if status.protects:
        KeySettings(purpose=Purpose.SIGN, algorithm=key.name, algorithms=(name,))
    else:
        with pytest.raises(ValueError, match="algorithms must name"):
            KeySettings(purpose=Purpose.SIGN, algorithm=key.name, algorithms=(name,))


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("name", DECRYPTIONS)
def test_the_status_of_a_decryption(
    monkeypatch: pytest.MonkeyPatch, name: str, status: Status
) -> None:
    monkeypatch.setitem(DECRYPTIONS, name, replace(DECRYPTIONS[name], status=status))
    declared = KeySettings(purpose=Purpose.DECRYPT, algorithm="RSA_3072")

    assert permitted(declared, "decrypt", name)  # unless it is not one of the key's, see below
    if name in PROFILE.decryptions:
        assert (name in algorithms_of(declared, PROFILE)) is (status is not Status.FORBIDDEN)
    if status is Status.FORBIDDEN:
        with pytest.raises(ValueError, match="algorithms must name"):
            KeySettings(purpose=Purpose.DECRYPT, algorithm="RSA_3072", algorithms=(name,))


def test_what_nist_retires_protects_nothing_new() -> None:
    assert DECRYPTIONS["RSA_OAEP_SHA_1"].status is Status.LEGACY
    assert not any(entry.hash == "SHA_1" for entry in SIGNATURES.values())
    assert all(entry.bits >= 2048 for entry in KEYS.values() if entry.family == "RSA")
