"""A pool that cannot start says why, in a sentence, and leaves nothing running."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keycustody.errors import KeycustodyError, ModuleUnusable, TokenNotFound
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool
from tests.integration.token.opened import opened
from tests.softhsm import SoftHsmToken


def _start(token: SoftHsmToken, **changes: Any) -> KeycustodyError:
    pool = Pool(token.settings(**changes), lambda: token.user_pin, PinGuard(token.state))
    with pytest.raises(KeycustodyError) as caught:
        asyncio.run(pool.start())
    assert pool.ready == 0
    return caught.value


def test_a_module_that_is_not_there_is_said(softhsm_token: SoftHsmToken, tmp_path: Path) -> None:
    error = _start(softhsm_token, module=str(tmp_path / "none.so"))
    assert isinstance(error, ModuleUnusable)
    assert "There is no PKCS#11 module at" in error.message


def test_a_library_that_is_no_module_is_said(softhsm_token: SoftHsmToken, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library")
    for path in (str(text), "/lib/x86_64-linux-gnu/libc.so.6"):
        if Path(path).exists():
            error = _start(softhsm_token, module=path)
            assert isinstance(error, ModuleUnusable)
            assert "is not a PKCS#11 module" in error.message


def test_a_module_without_its_configuration_is_said(
    softhsm_token: SoftHsmToken, tmp_path: Path
) -> None:
    environment = {"SOFTHSM2_CONF": str(tmp_path / "none.conf")}
    error = _start(softhsm_token, environment=environment)
    assert isinstance(error, ModuleUnusable | TokenNotFound)
    assert "CKR" not in error.message


def test_a_token_that_is_not_there_is_said_with_those_that_are(
    softhsm_token: SoftHsmToken,
) -> None:
    for changes in ({"label": "another"}, {"serial": "0000"}):
        error = _start(softhsm_token, **changes)
        assert isinstance(error, TokenNotFound)
        assert softhsm_token.label in error.message
        assert softhsm_token.info.serial in error.message


def test_a_token_is_found_by_its_serial_alone(softhsm_token: SoftHsmToken) -> None:
    with opened(softhsm_token, label=None, serial=softhsm_token.info.serial, workers=1) as one:
        assert one.pool.info == softhsm_token.info
