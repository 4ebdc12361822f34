"""Progress of bytes and of files: only where somebody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called with the bytes done so far and, where it is known, the total.
Progress = Callable[[int, int | None], None]


@contextmanager
def bar(label: str) -> Iterator[Progress | None]:
    """A bar on stderr with bytes, rate and time left; None if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Display
    except ModuleNotFoundError:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(label, total=None)

        def show(done: int, total: int | None) -> None:
            display.update(task, completed=done, total=total)

        yield show


@contextmanager
def count(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Files looked at and files moved, on stderr, their total not being known; None if stderr is no
    terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress as Display
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.fields[files]} files, {task.fields[moved]} moved"),
        TimeElapsedColumn(),
    )
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(label, total=None, files=0, moved=0)

        def show(files: int, moved: int) -> None:
            display.update(task, files=files, moved=moved)

        yield show
