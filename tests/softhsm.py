"""A SoftHSM token of the test's own: its own store, its own configuration, provisioned for real."""

import asyncio
import dataclasses
import glob
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keycustody.token.api import TokenInfo
from keycustody.token.initialise import initialise
from keycustody.token.pool import PoolSettings

#: Where distributions put it; the first is Debian's and Ubuntu's.
_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_CONF = """\
directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""


@dataclass(frozen=True)
class SoftHsmToken:
    """An initialised token with nothing on it, and all it takes to reach it."""

    module: str
    conf: Path
    label: str
    so_pin: bytes
    user_pin: bytes
    info: TokenInfo
    #: Empty, and the test's to use as an agent's state folder.
    state: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs besides the module."""
        return {"SOFTHSM2_CONF": str(self.conf)}

    def settings(self, **changes: Any) -> PoolSettings:
        """Settings of a pool for this token."""
        made = PoolSettings(
            module=self.module, profile="softhsm2", label=self.label, environment=self.environment
        )
        return dataclasses.replace(made, **changes)


def module() -> str:
    """The module. SoftHSM is required, so that its absence is an error and not a skip."""
    found = next(itertools.chain.from_iterable(map(glob.glob, _PLACES)), None)
    assert found, "SoftHSM2 is not installed; `make test` installs it"
    return found


def configure(folder: Path) -> Path:
    """Make a store without tokens; returns the configuration."""
    tokens = folder / "tokens"
    tokens.mkdir(mode=0o700)
    conf = folder / "softhsm2.conf"
    conf.write_text(_CONF.format(tokens=tokens))
    return conf


def provision(folder: Path, label: str = "keycustody-test") -> SoftHsmToken:
    """Make a store with one token, as `keycustody token init` does it."""
    conf = configure(folder)
    state = folder / "state"
    state.mkdir(mode=0o700)
    settings = PoolSettings(
        module=module(),
        profile="softhsm2",
        label=label,
        environment={"SOFTHSM2_CONF": str(conf)},
    )
    so_pin, user_pin = b"so-pin-for-tests", b"canary-user-pin-8f2e"
    info = asyncio.run(initialise(settings, so_pin=so_pin, user_pin=user_pin))
    return SoftHsmToken(settings.module, conf, label, so_pin, user_pin, info, state)


Provision = Callable[[], SoftHsmToken]
