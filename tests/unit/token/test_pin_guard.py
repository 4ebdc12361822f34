"""The PIN guard as a table of histories: which PIN may be tried after what."""

import asyncio
import json
from pathlib import Path

import pytest

from keycustody.errors import FileUnusable, PinGuarded, PinIncorrect, TokenUnavailable
from keycustody.token.pin_guard import PinGuard


def _attempt(folder: Path, pin: str, outcome: str, serial: str = "serial") -> str:
    """One login by a new process: its outcome, or "guarded" if it was not allowed."""

    async def login() -> None:
        shown = outcome.endswith("-shown")
        async with PinGuard(folder).attempt(serial, pin.encode(), shown=shown) as attempt:
            if outcome == "refused":
                raise PinIncorrect("refused")
            if outcome == "seen-wrong":
                assert attempt.again
                raise PinGuarded("the token shows it")
            if outcome == "failed":
                attempt.counts = False
            if outcome != "ok":
                raise TokenUnavailable("the worker died")

    try:
        asyncio.run(login())
    except PinGuarded:
        return "guarded"
    except (PinIncorrect, TokenUnavailable):
        return outcome
    return "ok"


#: What ends a login is "ok", "refused", "broken" (somebody was killed, on a token that shows wrong
#: PINs or not), "failed" (what may happen any number of times), "seen-wrong" (before it).
#: Steps are PIN, what the token would say, and what happens.
_HISTORIES: dict[str, list[tuple[str, str, str]]] = {
    "a good PIN is tried as often as wanted": [("A", "ok", "ok")] * 3,
    "a refused PIN is not tried again": [
        ("A", "refused", "refused"),
        ("A", "ok", "guarded"),
        ("A", "ok", "guarded"),
    ],
    "another PIN is": [("A", "refused", "refused"), ("B", "ok", "ok"), ("B", "ok", "ok")],
    "back and forth tries each once": [
        ("A", "refused", "refused"),
        ("B", "refused", "refused"),
        ("A", "ok", "guarded"),
        ("B", "ok", "guarded"),
        ("C", "ok", "ok"),
        ("A", "ok", "guarded"),
    ],
    "a login that broke off was a try": [("A", "broken", "broken"), ("A", "ok", "guarded")],
    "and is remembered when another PIN is tried": [
        ("A", "broken", "broken"),
        ("B", "ok", "ok"),
        ("A", "ok", "guarded"),
    ],
    "and when that one breaks off too": [
        ("A", "broken", "broken"),
        ("B", "broken", "broken"),
        ("A", "ok", "guarded"),
        ("B", "ok", "guarded"),
        ("C", "ok", "ok"),
    ],
    "an accepted PIN may break off": [
        ("A", "ok", "ok"),
        *[("A", "broken", "broken"), ("A", "ok", "ok")] * 3,
    ],
    "but not again and again": [
        ("A", "ok", "ok"),
        *[("A", "broken", "broken")] * 2,
        *[("A", "ok", "guarded")] * 2,
        ("B", "ok", "ok"),
        ("A", "ok", "guarded"),
    ],
    "once more where a wrong one shows": [
        ("A", "ok", "ok"),
        *[("A", "broken-shown", "broken-shown")] * 3,
        ("A", "ok", "guarded"),
    ],
    "another PIN in between does not start it anew": [
        ("A", "ok", "ok"),
        ("A", "broken", "broken"),
        ("B", "refused", "refused"),
        ("A", "broken", "broken"),
        ("A", "ok", "guarded"),
    ],
    "a token that fails is asked for as long as it takes": [
        ("A", "ok", "ok"),
        *[("A", "failed", "failed")] * 20,
        ("A", "ok", "ok"),
    ],
    "and failures take nothing from what may break off": [
        ("A", "ok", "ok"),
        ("A", "broken-shown", "broken-shown"),
        *[("A", "failed", "failed")] * 5,
        *[("A", "broken-shown", "broken-shown")] * 2,
        ("A", "ok", "guarded"),
    ],
    "what the token shows to be wrong was refused": [
        ("A", "ok", "ok"),
        ("A", "failed", "failed"),
        ("A", "seen-wrong", "guarded"),
        ("A", "ok", "guarded"),
    ],
    "until it is refused": [
        ("A", "ok", "ok"),
        ("A", "refused", "refused"),
        ("A", "ok", "guarded"),
    ],
    "accepted before does not help another PIN": [
        ("A", "ok", "ok"),
        ("B", "broken", "broken"),
        ("B", "ok", "guarded"),
        ("A", "ok", "ok"),
    ],
}


@pytest.mark.parametrize("history", _HISTORIES.values(), ids=_HISTORIES.keys())
def test_histories(tmp_path: Path, history: list[tuple[str, str, str]]) -> None:
    happened = [_attempt(tmp_path, pin, outcome) for pin, outcome, _ in history]
    assert happened == [expected for _, _, expected in history]


@pytest.mark.parametrize("outcome", ["refused", "broken"])
def test_clearing_allows_one_more_try(tmp_path: Path, outcome: str) -> None:
    assert not PinGuard(tmp_path).clear()
    _attempt(tmp_path, "A", outcome)
    assert PinGuard(tmp_path).clear()
    assert _attempt(tmp_path, "A", "refused") == "refused"
    assert _attempt(tmp_path, "A", "ok") == "guarded"


def test_clearing_says_whether_anything_was_held_back(tmp_path: Path) -> None:
    _attempt(tmp_path, "A", "ok")
    _attempt(tmp_path, "A", "broken")
    assert not PinGuard(tmp_path).clear()
    _attempt(tmp_path, "A", "ok")
    _attempt(tmp_path, "A", "broken")
    _attempt(tmp_path, "A", "broken")
    assert PinGuard(tmp_path).clear()


def test_tokens_do_not_mix(tmp_path: Path) -> None:
    assert _attempt(tmp_path, "A", "refused", "one") == "refused"
    assert _attempt(tmp_path, "A", "ok", "two") == "ok"
    assert _attempt(tmp_path, "A", "ok", "one") == "guarded"


def test_the_mark_is_there_before_the_login(tmp_path: Path) -> None:
    async def login() -> str:
        async with PinGuard(tmp_path).attempt("serial", b"A"):
            known = json.loads((tmp_path / "pin-guard.json").read_bytes())
            return str(known["tokens"]["serial"]["pending"])

    assert asyncio.run(login()) != ""


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"v":1}', b'{"v":1,"salt":1,"tokens":{}}'])
def test_a_damaged_file_guards_everything_until_cleared(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin-guard.json").write_bytes(content)
    assert _attempt(tmp_path, "A", "ok") == "guarded"
    assert PinGuard(tmp_path).clear()
    assert _attempt(tmp_path, "A", "ok") == "ok"


def test_without_a_durable_mark_there_is_no_login(tmp_path: Path) -> None:
    (tmp_path / "pin-guard.new").mkdir()
    entered = []

    async def login() -> None:
        async with PinGuard(tmp_path).attempt("serial", b"A"):
            entered.append(True)

    with pytest.raises(FileUnusable):
        asyncio.run(login())
    assert not entered


def test_a_state_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    guard = PinGuard(tmp_path / "none")
    with pytest.raises(FileUnusable):
        guard.clear()


def test_waiting_for_another_login_can_be_cancelled(tmp_path: Path) -> None:
    async def run() -> None:
        async with PinGuard(tmp_path).attempt("serial", b"A"):

            async def second() -> None:
                async with PinGuard(tmp_path).attempt("serial", b"A"):
                    pytest.fail("two logins at once")

            task = asyncio.create_task(second())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
