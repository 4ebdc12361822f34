"""What passes through custody and the pipe shows nothing of itself when it is printed."""

import pytest

from keycustody.custody.agreement import Answered
from keycustody.custody.signing import Item, Order
from keycustody.token.api import Decrypt, Delivered, KeyRef, Login, Outputs, Secret, Sign

CANARY = b"canary-5f1d"
KEY = KeyRef("release.v1", b"i" * 16, "sign", "EC_P256")


@pytest.mark.parametrize(
    "value",
    [
        Answered(1, [CANARY]),
        Item(CANARY, prehashed=False),
        Order("release", 0, "ED25519", 0, [CANARY], lambda item: item),
        Sign(KEY, "ED25519", [CANARY]),
        Decrypt(KEY, "RSA_OAEP_SHA_1", [CANARY]),
        Outputs([CANARY]),
        Delivered(plain=CANARY),
        Login(Secret(CANARY)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repr_holds_no_secret_and_no_plaintext(value: object) -> None:
    assert CANARY.decode() not in f"{value!r} {value}"
