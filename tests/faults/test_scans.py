"""A scan that failed is made up for soon, however long the interval is."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from keycustody.custody.keys.scanner import Scanner
from keycustody.token import profiles
from tests.faults.control import ALWAYS, Action, Control, Fault
from tests.faults.errors import CKR
from tests.faults.operations import behind
from tests.softhsm import SoftHsmToken

#: A second until the next scan, and as much as a busy machine takes.
SOON_SECONDS = 4.0
INTERVAL_SECONDS = 600.0


def test_service_does_not_wait_for_the_interval(
    module_token: SoftHsmToken, shim: Path, tmp_path: Path
) -> None:
    control = Control(tmp_path / "control")
    # Nothing was provisioned on this token.
    profile = replace(profiles.load("softhsm2"), data_objects=False, seal=None)

    async def scenario(scanner: Scanner) -> None:
        await scanner.scan()
        running = asyncio.create_task(scanner.run())
        control.set(Fault("C_FindObjectsInit", Action.RETURN, CKR["ARGUMENTS_BAD"], ALWAYS))
        scanner.soon()
        await asyncio.sleep(1.5)
        assert scanner.age() > 1.0
        control.clear()
        cleared = time.monotonic()
        while scanner.age() > time.monotonic() - cleared:
            assert time.monotonic() < cleared + SOON_SECONDS
            await asyncio.sleep(0.02)
        running.cancel()

    with behind(module_token, shim, control) as pool:
        pool.run(scenario(Scanner(pool.pool, {}, profile, INTERVAL_SECONDS)))
