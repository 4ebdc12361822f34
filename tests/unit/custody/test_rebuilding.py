"""Counters from a journal: all of what matters is there and follows, or there are none."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from keycustody.algorithms import Purpose
from keycustody.config import GrantSettings, KeySettings, Limits
from keycustody.custody.access.counters import Use
from keycustody.custody.access.rules import Rules, grants_of
from keycustody.custody.audit import Journal, draft
from keycustody.custody.audit.files import files_of
from keycustody.custody.clock import Clock
from keycustody.custody.rebuilding import rebuilt
from keycustody.errors import AuditChainBroken

_DAY = 86_400
_NOW = 20_000 * float(_DAY)


def rules() -> Rules:
    grant = GrantSettings.model_validate(
        {
            "name": "g",
            "principals": ("p",),
            "keys": ("k",),
            "operations": ("unwrap",),
            "budgets": ({"session_keys": 100, "seconds": _DAY},),
        }
    )
    return Rules("", grants_of((grant,)), {"k": KeySettings(purpose=Purpose.WRAP)}, Limits())


def write(folder: Path, count: int, at: float) -> None:
    """Unwrap so many session keys at that time, with a file for each record."""

    async def scenario() -> None:
        async with Journal(folder, rotate_bytes=1) as journal:
            journal.clock = Clock(at, wall=lambda: at, monotonic=lambda: 0.0)
            for number in range(count):
                item = hashlib.sha256(f"{at} {number}".encode()).hexdigest() + ":OK"
                unwrapped = draft(
                    request="",
                    principal="p",
                    via="",
                    operation="unwrap",
                    rules="",
                    grant="g",
                    items=[item],
                )
                await journal.append(unwrapped)

    asyncio.run(scenario())


def used(folder: Path) -> int:
    counted = rebuilt(rules(), folder, _NOW).usage(_NOW)
    return next(use.used for use in counted if isinstance(use, Use))


def test_what_is_in_the_window_counts(tmp_path: Path) -> None:
    assert used(tmp_path) == 0
    write(tmp_path, 3, _NOW - 2 * _DAY)
    write(tmp_path, 4, _NOW - 60)
    assert used(tmp_path) == 4


@pytest.mark.parametrize("gone", [[0], [0, 1]])
def test_files_from_before_the_window_may_be_elsewhere(tmp_path: Path, gone: list[int]) -> None:
    write(tmp_path, 3, _NOW - 2 * _DAY)
    write(tmp_path, 4, _NOW - 60)
    for file in [files_of(tmp_path)[number] for number in gone]:
        file.path.unlink()
    assert used(tmp_path) == 4


def _drop(files: list[Path]) -> None:
    for file in files:
        file.unlink()


def _edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b":OK", b":NO"))


Spoil = Callable[[list[Path]], object]
SPOILS: dict[str, Spoil] = {
    "one dropped": lambda files: _drop(files[4:5]),
    "all before dropped": lambda files: _drop(files[:5]),
    "all but the last dropped": lambda files: _drop(files[:-1]),
    "one edited": lambda files: _edit(files[4]),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_missing_or_edited_in_the_window_is_noticed(tmp_path: Path, name: str) -> None:
    write(tmp_path, 3, _NOW - 2 * _DAY)
    write(tmp_path, 4, _NOW - 60)
    SPOILS[name]([file.path for file in files_of(tmp_path)])
    with pytest.raises(AuditChainBroken, match="does not go on"):
        rebuilt(rules(), tmp_path, _NOW)
