"""Writes a journal that rotates at every record, and is killed before its N-th step.

    python -m tests.unit.custody.killed_journal FOLDER

For N = 1, 2, 3, ... a child forks, appends records in FOLDER/N, and sends itself SIGKILL before the
N-th time that it asks the kernel to change something. Each acknowledged record is noted in
FOLDER/N.told before the next one. Ends with the first child that survives.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keycustody.custody.audit import Journal, draft

STEPS = ("open", "fchmod", "fsync", "pwritev", "close", "ftruncate")


def record(operation: str) -> Any:
    return draft(request="0" * 32, principal="p", via="socket", operation=operation, rules="r")


async def append(folder: Path, told: int, count: int) -> None:
    async with Journal(folder, 1) as journal:
        for number in range(count):
            await journal.append(record(f"op{number}"))
            os.write(told, b".")


def dying(step: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)

    return wrapped


def child(folder: Path, steps: int) -> None:
    folder.mkdir()
    told = os.open(f"{folder}.told", os.O_WRONLY | os.O_CREAT, 0o600)
    left = [steps]
    for name in STEPS:
        setattr(os, name, dying(getattr(os, name), left))
    asyncio.run(append(folder, told, 4))


def main(folder: Path) -> None:
    for steps in range(1, 1000):
        pid = os.fork()
        if pid == 0:
            child(folder / str(steps), steps)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(Path(sys.argv[1]))
