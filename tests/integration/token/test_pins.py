"""A wrong PIN is tried once, whoever restarts what, and no PIN shows up anywhere."""

import asyncio
import dataclasses
import os
import signal
import traceback
from pathlib import Path

from keycustody.errors import KeycustodyError, PinGuarded, PinIncorrect
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool
from tests.integration.token.intrude import intrude
from tests.integration.token.opened import opened
from tests.softhsm import SoftHsmToken

WRONG = b"wrong-canary-31c7"


def _start(token: SoftHsmToken, pin: bytes) -> KeycustodyError | None:
    """Start an agent's pool anew, and end it; returns why it did not start."""

    async def run() -> None:
        async with Pool(token.settings(), lambda: pin, PinGuard(token.state)):
            pass

    try:
        asyncio.run(run())
    except KeycustodyError as error:
        return error
    return None


def test_a_wrong_pin_is_tried_once_and_never_again(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    assert isinstance(_start(token, WRONG), PinIncorrect)
    # Were it tried again, it would be accepted now: that is how it is known that it is not.
    intrude(token, "change_pin", "", b"", token.user_pin.decode(), WRONG.decode(), pin=True)
    for _ in range(3):
        assert isinstance(_start(token, WRONG), PinGuarded)
    assert PinGuard(token.state).clear()
    assert _start(token, WRONG) is None
    assert not PinGuard(token.state).clear()


def test_another_pin_is_tried_and_the_first_one_still_is_not(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    assert isinstance(_start(token, WRONG), PinIncorrect)
    assert isinstance(_start(token, b"another wrong one"), PinIncorrect)
    assert _start(token, token.user_pin) is None
    assert isinstance(_start(token, WRONG), PinGuarded)
    assert isinstance(_start(token, b"another wrong one"), PinGuarded)
    assert _start(token, token.user_pin) is None


def test_two_agents_on_one_state_folder_try_a_wrong_pin_once(fresh_token: SoftHsmToken) -> None:
    async def start() -> KeycustodyError | None:
        pool = Pool(fresh_token.settings(), lambda: WRONG, PinGuard(fresh_token.state))
        try:
            await pool.start()
        except KeycustodyError as error:
            return error
        return None

    async def both() -> list[KeycustodyError | None]:
        return list(await asyncio.gather(start(), start(), start()))

    codes = sorted(error.code for error in asyncio.run(both()) if error)
    assert codes == ["PIN_GUARDED", "PIN_GUARDED", "PIN_INCORRECT"]


def test_a_pin_changed_under_a_running_pool_is_tried_once(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    with opened(token) as one:
        intrude(token, "change_pin", "", b"", token.user_pin.decode(), "the new pin", pin=True)
        for pid in one.pool.pids:
            os.kill(pid, signal.SIGKILL)
        one.until(lambda: isinstance(one.pool.trouble, PinGuarded))
        assert one.pool.ready == 0
    changed = dataclasses.replace(token, user_pin=b"the new pin")
    with opened(changed) as one:
        assert one.pool.ready == 2


def test_an_accepted_pin_survives_a_death_in_the_middle_of_a_login(
    fresh_token: SoftHsmToken,
) -> None:
    token = fresh_token
    assert _start(token, token.user_pin) is None
    _die_while_logging_in(token, token.user_pin)
    assert _start(token, token.user_pin) is None


def test_a_pin_never_accepted_is_not_tried_after_a_death(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    _die_while_logging_in(token, token.user_pin)
    assert isinstance(_start(token, token.user_pin), PinGuarded)
    assert PinGuard(token.state).clear()
    assert _start(token, token.user_pin) is None


def _die_while_logging_in(token: SoftHsmToken, pin: bytes) -> None:
    child = os.fork()
    if child == 0:

        async def login() -> None:
            async with PinGuard(token.state).attempt(token.info.serial, pin):
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            asyncio.run(login())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_no_pin_is_in_errors_reprs_or_files(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    error = _start(token, WRONG)
    assert error is not None
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    assert WRONG.decode() not in shown
    assert _start(token, token.user_pin) is None
    for path in token.state.iterdir():
        content = path.read_bytes()
        assert WRONG not in content
        assert token.user_pin not in content
        assert path.stat().st_mode & 0o077 == 0


def test_logins_come_one_at_a_time(fresh_token: SoftHsmToken) -> None:
    guard, other = PinGuard(fresh_token.state), PinGuard(fresh_token.state)
    inside = 0
    most = 0

    async def login(which: PinGuard) -> None:
        nonlocal inside, most
        async with which.attempt("serial", b"pin"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1

    async def all_at_once() -> None:
        await asyncio.gather(*(login(which) for which in (guard, other) * 4))

    asyncio.run(all_at_once())
    assert most == 1
    assert Path(fresh_token.state / "pin-guard.json").exists()
