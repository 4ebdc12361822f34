"""Initialising tokens through PKCS#11, on stores of the test's own."""

import asyncio
import dataclasses
import traceback
from pathlib import Path
from typing import Any

import pytest

from keycustody.errors import (
    InvalidRequest,
    KeycustodyError,
    ModuleUnusable,
    PinIncorrect,
    TokenInitialised,
    TokenNotFound,
)
from keycustody.token.api import Scan, TokenInfo
from keycustody.token.initialise import initialise
from keycustody.token.pool import PoolSettings
from tests.integration.token.opened import opened
from tests.softhsm import SoftHsmToken, configure, module

SO_PIN, USER_PIN, WRONG = b"the so pin", b"the user pin", b"canary-pin"


@pytest.fixture
def store(tmp_path: Path) -> PoolSettings:
    """A store without tokens."""
    conf = configure(tmp_path)
    return PoolSettings(
        module=module(),
        profile="softhsm2",
        label="new",
        environment={"SOFTHSM2_CONF": str(conf)},
    )


def _initialise(settings: PoolSettings, **changes: Any) -> TokenInfo:
    given: dict[str, Any] = {"so_pin": SO_PIN, "user_pin": USER_PIN, **changes}
    return asyncio.run(initialise(settings, **given))


@pytest.mark.parametrize("label", ["x", "with blanks in it", "Schlüssel", "x" * 32])
def test_a_new_token_has_its_label_and_pins(store: PoolSettings, label: str) -> None:
    settings = dataclasses.replace(store, label=label)
    made = _initialise(settings)
    assert (made.label, made.manufacturer) == (label, "SoftHSM project")
    conf = Path(settings.environment["SOFTHSM2_CONF"])
    state = conf.parent / "state"
    state.mkdir()
    token = SoftHsmToken(settings.module, conf, label, SO_PIN, USER_PIN, made, state)
    with opened(token, workers=1) as pool:
        assert pool.pool.info == made


def test_a_token_is_not_initialised_twice(store: PoolSettings) -> None:
    _initialise(store)
    with pytest.raises(TokenInitialised):
        _initialise(store)


def test_force_erases_for_who_knows_the_so_pin(fresh_token: SoftHsmToken) -> None:
    with opened(fresh_token, workers=1) as pool:
        pool.make("sign", "EC_P256")
        assert pool.call(Scan()).objects
    settings = fresh_token.settings()
    with pytest.raises(PinIncorrect):
        _initialise(settings, so_pin=b"not the so pin", force=True)
    with opened(fresh_token, workers=1) as pool:
        assert pool.call(Scan()).objects
    _initialise(settings, so_pin=fresh_token.so_pin, user_pin=fresh_token.user_pin, force=True)
    with opened(fresh_token, workers=1) as pool:
        assert pool.call(Scan()).objects == []


def test_several_tokens_live_in_one_store(store: PoolSettings) -> None:
    made = [_initialise(dataclasses.replace(store, label=label)) for label in ("a", "b", "c")]
    assert len({one.serial for one in made}) == 3


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"label": "x" * 33}, {}),
        ({"label": "ü" * 17}, {}),
        ({"label": ""}, {}),
        ({"label": None}, {}),
        ({}, {"user_pin": b"123"}),
        ({}, {"so_pin": b"123"}),
        ({}, {"user_pin": b"1" * 300}),
    ],
)
def test_what_the_token_cannot_have_is_refused_before_anything_is_erased(
    store: PoolSettings, settings: dict[str, Any], given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        _initialise(dataclasses.replace(store, **settings), **given)
    assert _initialise(store).label == "new"


@pytest.mark.parametrize("kind", ["missing", "text", "libc"])
def test_a_module_that_cannot_be_used_is_said(
    store: PoolSettings, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "module.so"
    if kind == "text":
        path.write_text("not a library")
    if kind == "libc":
        path.symlink_to(_libc())
    with pytest.raises(ModuleUnusable):
        _initialise(dataclasses.replace(store, module=str(path)))


def _libc() -> str:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "/libc" in line)


def test_no_pin_is_in_what_is_raised(store: PoolSettings) -> None:
    _initialise(store)
    with pytest.raises(KeycustodyError) as caught:
        _initialise(store, so_pin=WRONG, force=True)
    assert WRONG.decode() not in "".join(traceback.format_exception(caught.value))


def test_a_second_token_of_that_label_has_to_be_named_by_serial(store: PoolSettings) -> None:
    first = _initialise(store)
    second = _initialise(dataclasses.replace(store, label="second"))
    named = dataclasses.replace(store, serial=second.serial)
    # No token has that label and that serial, so a new one is made under the label.
    third = _initialise(named)
    assert len({first.serial, second.serial, third.serial}) == 3
    with pytest.raises(TokenNotFound):
        _initialise(store, force=True)
    again = _initialise(dataclasses.replace(store, serial=first.serial), force=True)
    assert again.label == "new"
