"""What a session key is inside the token: sealed, it can be wrapped and never read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.token import watch_session_objects
from tests.softhsm import SoftHsmToken

_SCRIPT = Path(watch_session_objects.__file__)
_COMMON = {"TOKEN": False, "PRIVATE": True, "DECRYPT": False, "SIGN": False}
_SESSION_KEY = {**_COMMON, "SENSITIVE": True, "EXTRACTABLE": True, "WRAP": False, "DERIVE": False}
_Z = {**_COMMON, "SENSITIVE": True, "EXTRACTABLE": False, "WRAP": False, "DERIVE": True}
_T = {**_COMMON, "SENSITIVE": True, "EXTRACTABLE": False, "WRAP": True, "DERIVE": False}


@pytest.fixture(scope="module")
def flows(module_token: SoftHsmToken) -> dict[str, list[dict[str, bool]]]:
    token = module_token
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            str(_SCRIPT),
            token.module,
            token.label,
            token.user_pin.decode(),
        ],
        env={"PYTHONPATH": str(_SCRIPT.parents[3] / "agent"), **token.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flows: dict[str, list[dict[str, bool]]] = json.loads(done.stdout)
    return flows


@pytest.mark.parametrize("flow", ["generate sealed", "unwrap sealed"])
def test_sealed_everything_is_sensitive_and_for_one_use(
    flows: dict[str, list[dict[str, bool]]], flow: str
) -> None:
    assert flows[flow] == [_Z, _SESSION_KEY, _T]


@pytest.mark.parametrize("flow", ["generate plain", "unwrap plain"])
def test_plain_only_the_session_key_is_readable(
    flows: dict[str, list[dict[str, bool]]], flow: str
) -> None:
    assert flows[flow] == [{**_SESSION_KEY, "SENSITIVE": False}]
