"""A progress bar for bytes: only where somebody watches."""

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
