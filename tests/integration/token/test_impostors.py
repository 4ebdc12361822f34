"""What others put on the token is not believed, whether they have the PIN or not."""

import hashlib
import secrets

import pytest
from msgspec.structs import replace

from keycustody.errors import KeyNotFound, KeyNotTrusted
from keycustody.token.api import KeyRef, Outputs, Scan, Sign, WriteData
from tests.integration.token.intrude import intrude
from tests.integration.token.opened import OpenedPool


def _signs(token: OpenedPool, ref: KeyRef) -> bool:
    (signature,) = token.call(Sign(ref, "ECDSA_SHA_256", [bytes(32)])).items
    return isinstance(signature, bytes)


def _refused(token: OpenedPool, ref: KeyRef) -> str:
    with pytest.raises(KeyNotTrusted) as caught:
        _signs(token, ref)
    return caught.value.message


def test_public_objects_planted_without_a_pin_change_nothing(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    intrude(token.token, "plant_public", made.ref.label, made.ref.id, pin=False)
    assert _signs(token, made.ref)
    seen = token.call(Scan())
    assert made.ref.label in seen.public_labels
    assert sorted(o.kind for o in seen.objects if o.label == made.ref.label) == [
        "private",
        "public",
    ]


def test_objects_that_are_not_ours_do_not_stop_a_scan(token: OpenedPool) -> None:
    intrude(token.token, "plant_strange", "strange", b"", pin=True)
    (strange,) = [o for o in token.call(Scan()).objects if o.label.startswith("strange")]
    assert (strange.kind, strange.value) == ("data", b"")


def test_an_imported_wrap_key_is_refused(token: OpenedPool) -> None:
    label, id_ = f"{secrets.token_hex(4)}.v1", secrets.token_bytes(16)
    intrude(token.token, "import_secret", label, id_, pin=True)
    message = _refused(token, KeyRef(label, id_, "wrap", "AES_256_HMAC_SHA_256"))
    for attribute in ("LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE"):
        assert f"secret AES: CKA_{attribute} is False, must be True" in message
        assert f"secret GENERIC_SECRET: CKA_{attribute} is False, must be True" in message


def test_a_second_object_under_a_label_is_refused(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    intrude(token.token, "second_public", made.ref.label, secrets.token_bytes(16), pin=True)
    assert "there are 2 public EC objects, must be 1" in _refused(token, made.ref)


def test_a_second_object_with_an_id_is_refused(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    intrude(token.token, "second_public", "elsewhere.v1", made.ref.id, pin=True)
    assert "there are 2 public EC objects, must be 1" in _refused(token, made.ref)


def test_a_key_generated_exactly_as_ours_and_recorded_would_serve(token: OpenedPool) -> None:
    """The control of the next test: the intruder's template is refused only for what it changes."""
    ref, public = _generated(token)
    assert _signs(token, replace(ref, public_sha256=hashlib.sha256(public).digest()))


def _generated(token: OpenedPool, *weakened: str) -> tuple[KeyRef, bytes]:
    label, id_ = f"{secrets.token_hex(4)}.v1", secrets.token_bytes(16)
    public = intrude(token.token, "generate", label, id_, *weakened, pin=True)
    return KeyRef(label, id_, "sign", "EC_P256", hashlib.sha256(public).digest()), public


@pytest.mark.parametrize(
    ("weakened", "finding"),
    [
        ("private.EXTRACTABLE=True", "CKA_EXTRACTABLE is True, must be False"),
        ("private.EXTRACTABLE=True", "CKA_NEVER_EXTRACTABLE is False, must be True"),
        ("private.SENSITIVE=False", "CKA_SENSITIVE is False, must be True"),
        ("private.MODIFIABLE=True", "CKA_MODIFIABLE is True, must be False"),
        ("private.COPYABLE=True", "CKA_COPYABLE is True, must be False"),
        ("private.DERIVE=True", "CKA_DERIVE is True, must be False"),
        ("private.DECRYPT=True", "CKA_DECRYPT is True, must be False"),
        ("private.UNWRAP=True", "CKA_UNWRAP is True, must be False"),
        ("private.ALLOWED_MECHANISMS=1", "CKA_ALLOWED_MECHANISMS is [1, 4161], must be [4161]"),
        ("private.ALLOWED_MECHANISMS=absent", "CKA_ALLOWED_MECHANISMS is [], must be [4161]"),
        ("public.MODIFIABLE=True", "CKA_MODIFIABLE is True, must be False"),
        ("public.WRAP=True", "CKA_WRAP is True, must be False"),
        ("public.ENCRYPT=True", "CKA_ENCRYPT is True, must be False"),
        ("public.PRIVATE=False", "there are 0 public EC objects, must be 1"),
    ],
)
def test_a_weaker_key_is_refused(token: OpenedPool, weakened: str, finding: str) -> None:
    ref, _ = _generated(token, weakened)
    assert finding in _refused(token, ref)


def test_another_public_key_is_refused(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    intrude(token.token, "swap_public", made.ref.label, made.ref.id, pin=True)
    # An imported one is not even LOCAL.
    assert "CKA_LOCAL is False" in _refused(token, made.ref)


def test_a_public_key_that_is_not_the_recorded_one_is_refused(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    for pinned in (b"", bytes(32), hashlib.sha256(b"another").digest()):
        message = _refused(token, replace(made.ref, public_sha256=pinned))
        assert "its public key is not the one recorded" in message


@pytest.mark.parametrize("purpose", ["sign", "agree", "decrypt"])
def test_halves_of_two_pairs_are_refused_though_all_else_is_right(
    token: OpenedPool, purpose: str
) -> None:
    label, id_ = f"{secrets.token_hex(4)}.v1", secrets.token_bytes(16)
    public = intrude(token.token, "mix_pairs", label, id_, purpose, pin=True)
    algorithm = "RSA_2048" if purpose == "decrypt" else "EC_P256"
    ref = KeyRef(label, id_, purpose, algorithm, hashlib.sha256(public).digest())
    message = _refused(token, ref)
    assert "do not belong together" in message


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "EC_P384"},
        {"algorithm": "RSA_2048"},
        {"purpose": "agree"},
    ],
)
def test_a_key_is_not_taken_for_another_kind(token: OpenedPool, change: dict[str, str]) -> None:
    made = token.make("sign", "EC_P256")
    _refused(token, replace(made.ref, **change))


def test_a_label_or_id_that_does_not_belong_together_is_refused(token: OpenedPool) -> None:
    one, two = (token.make("sign", "EC_P256").ref for _ in range(2))
    assert "its CKA_ID is labelled" in _refused(token, replace(one, id=two.id))


def test_a_key_that_is_missing_is_not_found(token: OpenedPool) -> None:
    ref = KeyRef("missing.v1", bytes(16), "sign", "EC_P256", bytes(32))
    with pytest.raises(KeyNotFound):
        _signs(token, ref)


def test_a_key_destroyed_by_another_process_is_gone_at_once(token: OpenedPool) -> None:
    made = token.make("sign", "EC_P256")
    other = token.make("sign", "EC_P256")
    requests = [Sign(ref, "ECDSA_SHA_256", [bytes(32)]) for ref in (made.ref, other.ref)]
    for request in requests:  # now every worker holds the handles
        assert all(isinstance(answer, Outputs) for answer in token.everywhere(request))
    intrude(token.token, "destroy", made.ref.label, made.ref.id, pin=True)
    assert all(isinstance(answer, KeyNotFound) for answer in token.everywhere(requests[0]))
    assert all(isinstance(answer, Outputs) for answer in token.everywhere(requests[1]))


def test_records_are_private_and_survive_whoever_has_the_pin(token: OpenedPool) -> None:
    label = f"{secrets.token_hex(4)}.v1"
    token.call(WriteData("keycustody.state.v1", label, b"the record"))
    intrude(token.token, "see_nothing", label, b"", pin=False)
    intrude(token.token, "fail_to_change", label, b"", pin=True)
    (record,) = [o for o in token.call(Scan()).objects if o.label == label]
    assert (record.kind, record.application, record.value) == (
        "data",
        "keycustody.state.v1",
        b"the record",
    )
