"""How long attempts may take."""

import pytest

from keycustody.token.api import CreateVersion, KeyRef, Login, Open, Probe, Scan, Secret, Sign
from keycustody.token.ceilings import Ceilings

KEY = KeyRef("k.v1", bytes(16), "sign", "EC_P256")


@pytest.mark.parametrize(
    ("request_", "seconds"),
    [
        (Probe(), 2.0),
        (Sign(KEY, "ECDSA_SHA_256", []), 2.0),
        (Sign(KEY, "ECDSA_SHA_256", [b""] * 32), 6.0),
        (Scan(), 20.0),
        (CreateVersion("k.v1", bytes(16), "sign", "EC_P256"), 20.0),
        (CreateVersion("k.v1", bytes(16), "sign", "RSA_4096"), 120.0),
        (Open("module", "softhsm2"), 10.0),
        (Login(Secret(b"")), 5.0),
    ],
)
def test_ceilings_of_kinds(request_: object, seconds: float) -> None:
    assert Ceilings(2.0).of(request_) == pytest.approx(seconds)  # type: ignore[arg-type]
    assert Ceilings(4.0).of(request_) == pytest.approx(2 * seconds)  # type: ignore[arg-type]


def test_a_scan_gets_ten_times_what_it_took_lately() -> None:
    ceilings = Ceilings(2.0)
    ceilings.note(Scan(), 0.01)
    assert ceilings.of(Scan()) == 2.0
    ceilings.note(Scan(), 0.5)
    assert ceilings.of(Scan()) == 5.0
    for _ in range(10):
        ceilings.note(Scan(), 0.01)
    assert ceilings.of(Scan()) == 2.0
    ceilings.note(Scan(), 60.0)
    assert ceilings.of(Scan()) == 20.0
