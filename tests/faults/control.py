"""Tells the shim (shim.c) what to do, and how often each function was called.

The file's layout is that of `struct control`. All processes that loaded the shim share it, so a
fault takes effect at once, and `times=1` is one call in all of them together.
"""

import mmap
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_NAMES = (
    "Initialize Finalize GetInfo GetFunctionList GetSlotList GetSlotInfo GetTokenInfo "
    "GetMechanismList GetMechanismInfo InitToken InitPIN SetPIN OpenSession CloseSession "
    "CloseAllSessions GetSessionInfo GetOperationState SetOperationState Login Logout "
    "CreateObject CopyObject DestroyObject GetObjectSize GetAttributeValue SetAttributeValue "
    "FindObjectsInit FindObjects FindObjectsFinal EncryptInit Encrypt EncryptUpdate "
    "EncryptFinal DecryptInit Decrypt DecryptUpdate DecryptFinal DigestInit Digest "
    "DigestUpdate DigestKey DigestFinal SignInit Sign SignUpdate SignFinal SignRecoverInit "
    "SignRecover VerifyInit Verify VerifyUpdate VerifyFinal VerifyRecoverInit VerifyRecover "
    "DigestEncryptUpdate DecryptDigestUpdate SignEncryptUpdate DecryptVerifyUpdate GenerateKey "
    "GenerateKeyPair WrapKey UnwrapKey DeriveKey SeedRandom GenerateRandom GetFunctionStatus "
    "CancelFunction WaitForSlotEvent"
)
FUNCTIONS = tuple(f"C_{name}" for name in _NAMES.split())

ALWAYS = -1
_ENTRY = struct.Struct("=5q")
_GLOBALS = ("absent", "sessions_epoch", "handles_epoch", "initialised_epoch")
SIZE = _ENTRY.size * len(FUNCTIONS) + 8 * len(_GLOBALS)


class Action(IntEnum):
    """`enum action` of shim.c."""

    NONE = 0
    RETURN = 1
    RETURN_AFTER = 2
    DELAY = 3
    HANG = 4
    SEGV = 5
    ABORT = 6
    EXIT = 7
    LENGTH = 8


@dataclass(frozen=True)
class Fault:
    """What a function does: `argument` is a CKR value, milliseconds, an exit status, or what is
    added to the returned length."""

    function: str
    action: Action
    argument: int = 0
    times: int = 1
    after: int = 0


class Control:
    """The control file of one set of workers."""

    def __init__(self, path: Path) -> None:
        """Make the file, or take the one that is there, with what is in force."""
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    def set(self, fault: Fault) -> None:
        """Have the next calls of the function fail."""
        base = _offset(fault.function)
        # The action last: before that, nothing is in force.
        struct.pack_into("=q", self._map, base + 24, Action.NONE)
        struct.pack_into("=2q", self._map, base + 8, fault.after, fault.times)
        struct.pack_into("=q", self._map, base + 32, fault.argument)
        struct.pack_into("=q", self._map, base + 24, fault.action)

    def clear(self) -> None:
        """Have everything work again."""
        for function in FUNCTIONS:
            struct.pack_into("=q", self._map, _offset(function) + 24, Action.NONE)
        self._set("absent", 0)

    def calls(self, function: str) -> int:
        """How often the function was called, by all processes."""
        return int(struct.unpack_from("=q", self._map, _offset(function))[0])

    def total(self) -> int:
        """How often anything was called."""
        return sum(self.calls(function) for function in FUNCTIONS)

    def remaining(self, function: str) -> int:
        """How many more calls the fault will hit."""
        return int(struct.unpack_from("=q", self._map, _offset(function) + 16)[0])

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Have no token for the length of the block; after it, all sessions are lost."""
        self._set("absent", 1)
        try:
            yield
        finally:
            self.forget_sessions()
            self._set("absent", 0)

    def forget_sessions(self) -> None:
        """Have every process lose its sessions, and its login with them."""
        self._advance("sessions_epoch")

    def forget_handles(self) -> None:
        """Make every object handle that was given so far stale."""
        self._advance("handles_epoch")

    def forget_initialisation(self) -> None:
        """Have every call fail in each process until it initialises the module again."""
        self._advance("initialised_epoch")

    def _advance(self, name: str) -> None:
        self._set(name, self._get(name) + 1)

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._map, _global(name), value)

    def _get(self, name: str) -> int:
        return int(struct.unpack_from("=q", self._map, _global(name))[0])


def build(folder: Path) -> Path:
    """Compile the shim; returns the module."""
    module = folder / "faults.so"
    source = Path(__file__).with_name("shim.c")
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra")
    subprocess.run(["cc", *options, "-o", module, source, "-ldl"], check=True)
    return module


def _offset(function: str) -> int:
    return FUNCTIONS.index(function) * _ENTRY.size


def _global(name: str) -> int:
    return _ENTRY.size * len(FUNCTIONS) + 8 * _GLOBALS.index(name)
