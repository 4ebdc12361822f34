"""The fault table: what goes wrong, in which operation, what is seen of it, how soon it is mended.

Each row gives one operation one fault. A fault that passes costs the caller of an idempotent
operation nothing but time: the answer comes, and is right. A fault that stays is
`TOKEN_UNAVAILABLE` (a hang, at the latest at the deadline). When it ends, so does the outage,
within `BACK_SECONDS` and with nobody's help.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keycustody.errors import (
    DeadlineExceeded,
    KeycustodyError,
    TokenUnavailable,
    UnsupportedByToken,
)
from keycustody.token.api import Probe
from tests.faults.control import ALWAYS, Action, Control, Fault
from tests.faults.errors import CKR
from tests.faults.operations import Operations, behind, prepared
from tests.softhsm import SoftHsmToken

#: What a call is given: a hung attempt, its end, and another attempt fit into it.
TIMEOUT_SECONDS = 6.0
#: How soon a lasting fault is told: no caller waits for the deadline to learn it.
TOLD_SECONDS = 4.0
#: How soon after a fault calls succeed again: two seconds, and as much for a busy machine.
BACK_SECONDS = 4.0

OK = ("",)
GONE = (TokenUnavailable.code,)
LATE = (TokenUnavailable.code, DeadlineExceeded.code)

#: The PKCS#11 functions that each operation calls.
USES = {
    "sign": "SignInit Sign",
    "agree": "DeriveKey GetAttributeValue DestroyObject",
    "decrypt": "DecryptInit Decrypt",
    "generate": "GenerateKey DeriveKey WrapKey SignInit Sign DestroyObject",
    "unwrap": "SignInit Sign UnwrapKey DeriveKey WrapKey DestroyObject",
    "scan": "FindObjectsInit FindObjects FindObjectsFinal GetAttributeValue",
    "self-test": "FindObjectsInit FindObjects FindObjectsFinal GetAttributeValue SignInit Sign",
}
#: And the one that does the work.
MAIN = {
    "sign": "Sign",
    "agree": "DeriveKey",
    "decrypt": "Decrypt",
    "generate": "GenerateKey",
    "unwrap": "UnwrapKey",
    "scan": "FindObjects",
    "self-test": "Sign",
}
#: Those that give an output with a length.
MEASURED = (
    ("sign", "Sign"),
    ("agree", "GetAttributeValue"),
    ("decrypt", "Decrypt"),
    ("generate", "WrapKey"),
    ("generate", "Sign"),
)
#: One error of each kind: nobody knows, the session is gone, the module is.
SAMPLE = ("GENERAL_ERROR", "SESSION_HANDLE_INVALID", "DEVICE_ERROR")
MECHANISM_INVALID = 0x70


@dataclass(frozen=True)
class Row:
    """A fault in an operation; `sees` is what its caller may see, the codes of errors or `OK`."""

    operation: str
    function: str
    action: Action
    argument: int = 0
    times: int = 1
    after: int = 0
    sees: tuple[str, ...] = OK

    @property
    def fault(self) -> Fault:
        return Fault(f"C_{self.function}", self.action, self.argument, self.times, self.after)

    def __str__(self) -> str:
        what = f"{self.operation}-{self.function}-{self.action.name}-{self.argument:#x}"
        return f"{what}-{'always' if self.times == ALWAYS else f'after{self.after}'}"


def _passing() -> Iterator[Row]:
    """Errors that come once, in each function of each operation."""
    for operation, functions in USES.items():
        for function in functions.split():
            # Of any kind, and also those that blame the request, its key or its data.
            names = CKR if function == MAIN[operation] else ("SESSION_HANDLE_INVALID",)
            for name in names:
                yield Row(operation, function, Action.RETURN, CKR[name])


def _lasting() -> Iterator[Row]:
    """Errors that stay."""
    for operation, function in MAIN.items():
        for name in (*SAMPLE, "OBJECT_HANDLE_INVALID"):
            yield Row(operation, function, Action.RETURN, CKR[name], ALWAYS, sees=GONE)
    yield Row("scan", "GetAttributeValue", Action.RETURN, CKR["DEVICE_ERROR"], ALWAYS, sees=GONE)
    yield Row("sign", "Sign", Action.SEGV, times=ALWAYS, sees=GONE)
    for operation, function in MEASURED:
        for change in (1 << 40, -(1 << 62)):
            yield Row(operation, function, Action.LENGTH, change, ALWAYS, sees=GONE)
    # No other worker and no new process knows the mechanism either.
    unknown = UnsupportedByToken.code
    yield Row("sign", "SignInit", Action.RETURN, MECHANISM_INVALID, ALWAYS, sees=(unknown,))


def _violent() -> Iterator[Row]:
    """Modules that end their process, or answer late, or wrong."""
    for operation, function in MAIN.items():
        yield Row(operation, function, Action.SEGV)
        yield Row(operation, function, Action.RETURN_AFTER, CKR["DEVICE_ERROR"])
    for action in (Action.ABORT, Action.EXIT, Action.DELAY):
        yield Row("sign", "Sign", action, 200)
    # The first call asks for the length, the second has the answer. How long a plaintext is, nobody
    # knows but its reader: there, only what is impossible can be told.
    for operation, function in MEASURED:
        impossible = (1 << 40, -(1 << 20))
        for change in impossible if operation == "decrypt" else (-1, 1, *impossible):
            yield Row(operation, function, Action.LENGTH, change, after=0)
            yield Row(operation, function, Action.LENGTH, change, after=1)


ROWS = [*_passing(), *_lasting(), *_violent()]
HANGS = [
    *(Row(operation, function, Action.HANG) for operation, function in MAIN.items()),
    Row("sign", "Sign", Action.HANG, times=ALWAYS, sees=LATE),
]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    """What is to go wrong in this module's token."""
    return Control(tmp_path_factory.mktemp("control") / "control")


@pytest.fixture(scope="module")
def operations(module_token: SoftHsmToken, shim: Path, control: Control) -> Iterator[Operations]:
    with behind(module_token, shim, control) as pool:
        yield prepared(pool)


def seen(operations: Operations, operation: str, timeout: float = TIMEOUT_SECONDS) -> str:
    """Do an operation once; returns the code of its error, or nothing for the right answer."""
    try:
        operations.do(operation, timeout)
    except KeycustodyError as error:
        return error.code
    return ""


def back(operations: Operations, operation: str) -> float:
    """Ask until it is done; returns how many seconds that took."""
    begun = time.monotonic()
    while seen(operations, operation, timeout=BACK_SECONDS):
        assert time.monotonic() < begun + 10 * BACK_SECONDS, "it does not come back"
        operations.pool.pause(0.01)
    return time.monotonic() - begun


def well(operations: Operations, operation: str) -> None:
    """Wait until everything works, so that one fault does not meet another."""
    assert back(operations, operation) < BACK_SECONDS
    operations.pool.until(lambda: operations.pool.pool.ready == 2)
    # A worker that was never of use is not worth what it takes to mend it.
    operations.pool.everywhere(Probe())


def _check(operations: Operations, control: Control, row: Row) -> float:
    """Have the row happen; returns how long the caller waited."""
    well(operations, row.operation)
    control.set(row.fault)
    begun = time.monotonic()
    try:
        said = seen(operations, row.operation)
        waited = time.monotonic() - begun
        hit = row.times == ALWAYS or control.remaining(row.fault.function) == 0
    finally:
        control.clear()
    assert hit, "the operation does not call this function"
    assert said in row.sees
    assert back(operations, row.operation) < BACK_SECONDS
    return waited


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_faults(operations: Operations, control: Control, row: Row) -> None:
    assert _check(operations, control, row) < TOLD_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("row", HANGS, ids=str)
def test_hangs(operations: Operations, control: Control, row: Row) -> None:
    assert _check(operations, control, row) < TIMEOUT_SECONDS + 1


@pytest.mark.parametrize("operation", USES)
@pytest.mark.parametrize(
    "forget",
    [Control.forget_handles, Control.forget_sessions, Control.forget_initialisation],
    ids=lambda forget: forget.__name__,
)
def test_what_a_module_forgets_is_made_anew(
    operations: Operations, control: Control, operation: str, forget: Callable[[Control], None]
) -> None:
    well(operations, operation)
    forget(control)
    assert (seen(operations, operation),) == OK
    assert back(operations, operation) < BACK_SECONDS


@pytest.mark.parametrize("operation", ["sign", "scan"])
def test_an_absent_token_is_told_at_once_and_found_again(
    operations: Operations, control: Control, operation: str
) -> None:
    well(operations, operation)
    with control.absent():
        begun = time.monotonic()
        # The first may find out what the later ones are told.
        assert (seen(operations, operation),) == GONE
        assert time.monotonic() < begun + TOLD_SECONDS
        operations.pool.pause(1.0)
        for _ in range(20):
            begun = time.monotonic()
            assert (seen(operations, operation),) == GONE
            assert time.monotonic() < begun + 0.5
    assert back(operations, operation) < BACK_SECONDS


def test_a_login_that_is_only_claimed_is_seen_through(
    operations: Operations, control: Control
) -> None:
    """CKR_USER_ALREADY_LOGGED_IN of a module that logged nobody in."""
    well(operations, "sign")
    control.set(Fault("C_Login", Action.RETURN, CKR["USER_ALREADY_LOGGED_IN"], 2))
    control.forget_sessions()
    try:
        assert (seen(operations, "sign"),) == OK
        assert back(operations, "sign") < BACK_SECONDS
    finally:
        control.clear()


@pytest.mark.parametrize(
    ("operation", "function", "code"),
    [
        ("sign", "Sign", "DATA_INVALID"),
        ("agree", "DeriveKey", "DATA_LEN_RANGE"),
        ("decrypt", "Decrypt", "ENCRYPTED_DATA_INVALID"),
        ("unwrap", "UnwrapKey", "WRAPPED_KEY_INVALID"),
    ],
)
def test_one_error_in_a_keys_proof_is_not_held_against_it(
    operations: Operations, control: Control, operation: str, function: str, code: str
) -> None:
    well(operations, operation)
    before = operations.pool.pool.restarts + 1
    for pid in operations.pool.pool.pids:
        os.kill(pid, signal.SIGKILL)
    operations.pool.until(lambda: operations.pool.pool.restarts > before)
    operations.pool.until(lambda: operations.pool.pool.ready == 2)
    control.set(Fault(f"C_{function}", Action.RETURN, CKR[code], 1))
    try:
        assert (seen(operations, operation),) == OK
    finally:
        control.clear()
