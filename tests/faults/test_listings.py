"""A listing that leaves out an object now and then, while keys are looked after: what is on the
token is not made, or recorded, a second time."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import softhsm
from tests.faults.agents import behind_shim, serving
from tests.faults.control import Action, Control, Fault
from tests.integration.command import Command

pytestmark = pytest.mark.slow

#: By another program, and past the shim: how many objects the token holds.
_COUNT = """
import sys
import pkcs11
module, pin = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="keycustody-faults")
with token.open(user_pin=open(pin).read().strip()) as session:
    print(len(list(session.get_objects())))
"""


#: A key is rotated once: until its new version serves, a rotation is that same one.
_ROTATED = """
[keys.rotated{number}]
purpose = "sign"
algorithm = "EC_P256"
"""
_ROTATIONS = 6


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Iterator[Command]:
    more = "".join(_ROTATED.format(number=number) for number in range(_ROTATIONS))
    command = behind_shim(tmp_path_factory.mktemp("listings"), shim)
    # The faults are for the command's own looks.
    calm = command.config.read_text().replace("scan_seconds = 1.0", "scan_seconds = 60.0")
    command.config.write_text(calm + more)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with serving(command):
        yield command


@pytest.fixture
def control(own: Command) -> Iterator[Control]:
    control = Control(own.folder / "control")
    yield control
    control.clear()


def test_an_object_that_one_listing_leaves_out_is_not_made_again(
    own: Command, control: Control
) -> None:
    held = _objects(own)
    before = control.calls("C_FindObjects")
    assert b"Nothing to do" in _said(own, "apply")
    calls = control.calls("C_FindObjects") - before
    for after in range(calls):
        control.set(Fault("C_FindObjects", Action.LENGTH, -1, after=after))
        assert b"Nothing to do" in _said(own, "apply"), after
    assert _objects(own) == held


@pytest.mark.parametrize("number", range(_ROTATIONS))
def test_a_rotation_makes_a_version_whatever_a_listing_leaves_out(
    own: Command, control: Control, number: int
) -> None:
    held, name = _objects(own), f"rotated{number}"
    control.set(Fault("C_FindObjects", Action.LENGTH, -1, times=20 if number % 2 else 1))
    assert f"done: create {name}.v2".encode() in _said(own, "rotate", name)
    control.clear()
    # Two halves and a record.
    assert _objects(own) == held + 3


def _said(own: Command, *command: str) -> bytes:
    return own.ok("keys", *command, "--config", own.config)


def _objects(own: Command) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT, softhsm.module(), own.folder / "var" / "pin"],
        env=own.environment | {"SOFTHSM2_CONF": str(own.folder / "var/softhsm/softhsm2.conf")},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)
