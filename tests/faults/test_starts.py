"""Faults while workers start, and while a key is made: what is not simply repeated."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keycustody.errors import PinGuarded, TokenUnavailable
from keycustody.token.api import CreateVersion, Scan, Sign
from keycustody.token.pin_guard import PinGuard
from tests.faults.control import Action, Control, Fault
from tests.faults.errors import CKR
from tests.faults.operations import DIGEST, behind, verify
from tests.integration.token.opened import Made, OpenedPool
from tests.softhsm import SoftHsmToken

#: Two seconds, and as much for a busy machine; a start that hangs is given up later.
BACK_SECONDS = 4.0
HUNG_START_SECONDS = 15.0
PIN_INCORRECT = 0xA0

STARTING = (
    "C_Initialize",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_OpenSession",
    "C_Login",
)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    return Control(tmp_path_factory.mktemp("control") / "control")


@pytest.fixture(scope="module")
def pool(module_token: SoftHsmToken, shim: Path, control: Control) -> Iterator[OpenedPool]:
    with behind(module_token, shim, control) as pool:
        yield pool


@pytest.fixture(scope="module")
def signing(pool: OpenedPool) -> Made:
    return pool.make("sign", "EC_P256")


@pytest.fixture(autouse=True)
def _well(pool: OpenedPool, control: Control) -> Iterator[None]:
    pool.until(lambda: pool.pool.ready == 2)
    yield
    control.clear()


def _signs(pool: OpenedPool, signing: Made) -> bool:
    try:
        (signature,) = pool.call(Sign(signing.ref, "ECDSA_SHA_256", [DIGEST]), 2.0).items
    except TokenUnavailable:
        return False
    assert isinstance(signature, bytes)
    verify(signing, signature)
    return True


def _seconds_until_it_signs(pool: OpenedPool, signing: Made) -> float:
    begun = time.monotonic()
    while not _signs(pool, signing):
        assert time.monotonic() < begun + 60, "it does not come back"
        pool.pause(0.01)
    return time.monotonic() - begun


def _kill_all(pool: OpenedPool) -> None:
    for pid in pool.pool.pids:
        os.kill(pid, signal.SIGKILL)
    pool.until(lambda: pool.pool.ready == 0)


@pytest.mark.parametrize("function", STARTING)
@pytest.mark.parametrize(
    ("action", "argument"),
    [
        (Action.RETURN, CKR["GENERAL_ERROR"]),
        (Action.RETURN, CKR["DEVICE_ERROR"]),
        (Action.SEGV, 0),
    ],
    ids=["general-error", "device-error", "segv"],
)
def test_a_start_that_fails_is_made_again(
    pool: OpenedPool, signing: Made, control: Control, function: str, action: Action, argument: int
) -> None:
    control.set(Fault(function, action, argument))
    _kill_all(pool)
    assert _seconds_until_it_signs(pool, signing) < BACK_SECONDS
    pool.until(lambda: pool.pool.ready == 2)
    assert control.remaining(function) == 0


@pytest.mark.slow
def test_a_login_that_crashes_many_times_is_no_wrong_pin(
    pool: OpenedPool, signing: Made, control: Control
) -> None:
    control.set(Fault("C_Login", Action.SEGV, times=6))
    _kill_all(pool)
    _seconds_until_it_signs(pool, signing)
    pool.until(lambda: pool.pool.ready == 2)
    assert control.remaining("C_Login") == 0


@pytest.mark.slow
@pytest.mark.parametrize("function", ["C_Initialize", "C_OpenSession", "C_Login"])
def test_a_start_that_hangs_is_given_up(
    pool: OpenedPool, signing: Made, control: Control, function: str
) -> None:
    control.set(Fault(function, Action.HANG))
    _kill_all(pool)
    assert _seconds_until_it_signs(pool, signing) < HUNG_START_SECONDS
    pool.until(lambda: pool.pool.ready == 2)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("C_GenerateKeyPair", Action.RETURN, CKR["GENERAL_ERROR"]),
        Fault("C_GenerateKeyPair", Action.RETURN, CKR["SESSION_HANDLE_INVALID"]),
        Fault("C_GenerateKeyPair", Action.RETURN_AFTER, CKR["DEVICE_ERROR"]),
        Fault("C_GenerateKeyPair", Action.SEGV),
    ],
    ids=lambda fault: f"{fault.action.name}-{fault.argument:#x}",
)
def test_a_key_is_never_made_a_second_time(
    pool: OpenedPool, signing: Made, control: Control, fault: Fault
) -> None:
    before = control.calls("C_GenerateKeyPair")
    control.set(fault)
    id_ = os.urandom(16)
    with pytest.raises(TokenUnavailable):
        pool.call(CreateVersion(f"new{before}.v1", id_, "sign", "EC_P256"), 30)
    assert control.calls("C_GenerateKeyPair") == before + 1
    assert _seconds_until_it_signs(pool, signing) < BACK_SECONDS
    assert len([one for one in pool.call(Scan()).objects if one.id == id_]) in (0, 2)


def test_a_refused_pin_ends_logins_and_not_service(
    pool: OpenedPool, signing: Made, control: Control, module_token: SoftHsmToken
) -> None:
    control.set(Fault("C_Login", Action.RETURN, PIN_INCORRECT))
    before = control.calls("C_Login")
    os.kill(pool.pool.pids[0], signal.SIGKILL)
    pool.until(lambda: isinstance(pool.pool.trouble, PinGuarded))
    pool.pause(1.0)
    assert control.calls("C_Login") == before + 1
    assert _signs(pool, signing)
    assert PinGuard(module_token.state).clear()
    # As long as the breaker's pause for what a person has to mend.
    pool.until(lambda: pool.pool.ready == 2)
