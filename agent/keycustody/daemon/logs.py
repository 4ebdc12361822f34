"""Where logs go: ours and those of libraries."""

import contextlib
import logging
import sys
from collections import Counter
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

#: What a line may be, worst last.
LEVELS = ("debug", "info", "warning", "error", "critical")


class _Stderr:
    """Standard error, or nowhere: a full disk or a reader that is gone must not end the agent. What
    cannot be written is lost, and was counted."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def log_to_stderr(level: str = "info") -> Counter[str]:
    """Send logs to stderr: one JSON object a line, or words where a person reads it.

    Returns a count of the lines by level, which goes on counting.
    """
    counts: Counter[str] = Counter(dict.fromkeys(LEVELS, 0))

    def count(logger: Any, method: str, event: EventDict) -> EventDict:
        counts[event["level"]] += 1
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            count,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_for_reader(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    return counts


def _for_reader() -> list[Processor]:
    if sys.stderr.isatty():
        # The plain traceback: rich's would show the variables of each frame, keys and all.
        return [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
