"""The shim does what it is told: else the fault table proves nothing."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keycustody.errors import KeycustodyError
from keycustody.token.api import Sign
from tests.faults.control import ALWAYS, Action, Control, Fault
from tests.integration.token.opened import OpenedPool, opened
from tests.softhsm import SoftHsmToken

DIGEST = bytes(32)


@pytest.fixture
def pool(fresh_token: SoftHsmToken, shim: Path, control: Control) -> Iterator[OpenedPool]:
    environment = {
        **fresh_token.environment,
        "FAULTS_MODULE": fresh_token.module,
        "FAULTS_CONTROL": str(control.path),
    }
    with opened(fresh_token, module=str(shim), environment=environment) as pool:
        yield pool


def test_calls_are_counted_over_all_processes(pool: OpenedPool, control: Control) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST] * 7)
    pool.everywhere(request)
    before = control.calls("C_SignInit")
    pool.call(request)
    assert control.calls("C_SignInit") == before + 7


@pytest.mark.parametrize(
    "fault",
    [
        Fault("C_Sign", Action.RETURN, 0x30),
        Fault("C_Sign", Action.RETURN_AFTER, 0x30),
        Fault("C_Sign", Action.SEGV),
        Fault("C_Sign", Action.ABORT),
        Fault("C_Sign", Action.EXIT, 3),
        Fault("C_Sign", Action.DELAY, 50),
        Fault("C_Sign", Action.LENGTH, 1),
        Fault("C_SignInit", Action.RETURN, 0xB3, after=1),
    ],
    ids=lambda fault: f"{fault.function}-{fault.action.name}",
)
def test_a_fault_hits_as_often_as_told(pool: OpenedPool, control: Control, fault: Fault) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    control.set(fault)
    for _ in range(fault.after + 1):
        with contextlib.suppress(KeycustodyError):
            pool.call(request)
    assert control.remaining(fault.function) == 0
    pool.until(lambda: pool.pool.ready == 2)
    assert isinstance(pool.call(request).items[0], bytes)


def test_a_forgotten_handle_is_found_again(pool: OpenedPool, control: Control) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    pool.everywhere(request)
    control.forget_handles()
    finds = control.calls("C_FindObjectsInit")
    assert isinstance(pool.call(request).items[0], bytes)
    assert control.calls("C_FindObjectsInit") > finds


@pytest.mark.parametrize(
    "forget", [Control.forget_sessions, Control.forget_initialisation], ids=lambda f: f.__name__
)
def test_a_forgotten_session_costs_a_login(
    pool: OpenedPool, control: Control, forget: Callable[[Control], None]
) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    logins = control.calls("C_Login")
    forget(control)
    with contextlib.suppress(KeycustodyError):
        pool.call(request)
    pool.until(lambda: pool.pool.ready == 2)
    assert isinstance(pool.call(request).items[0], bytes)
    assert control.calls("C_Login") > logins


def test_an_absent_token_does_nothing(pool: OpenedPool, control: Control) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    with control.absent(), pytest.raises(KeycustodyError):
        pool.call(request, timeout=5)


def test_what_always_fails_can_be_cleared(pool: OpenedPool, control: Control) -> None:
    request = Sign(pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    control.set(Fault("C_Sign", Action.RETURN, 0x05, times=ALWAYS))
    for _ in range(3):
        with contextlib.suppress(KeycustodyError):
            pool.call(request)
    control.clear()
    pool.until(lambda: pool.pool.ready == 2)
    assert isinstance(pool.call(request).items[0], bytes)
