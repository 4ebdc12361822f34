"""Many items in one request: those that can be done are shared out, and each keeps its place."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from keycustody.errors import InternalError
from keycustody.token.api import Fault

Input = TypeVar("Input")
Output = TypeVar("Output")

#: Items of one frame to a worker. Small enough that a batch occupies several workers and lets
#: others in between; large enough that the pipe costs little beside the token.
PART = 32


async def spread(
    inputs: Sequence[Input | Fault],
    ask: Callable[[list[Input]], Awaitable[list[Output | Fault]]],
) -> list[Output | Fault]:
    """Ask for the outputs of all inputs that are not already faults, in parts, and return one
    result an input, in order."""
    wanted = [value for value in inputs if not isinstance(value, Fault)]
    parts = [wanted[start : start + PART] for start in range(0, len(wanted), PART)]
    if len(parts) == 1:
        outputs = await ask(parts[0])
    else:
        answers = await asyncio.gather(*(ask(part) for part in parts))
        outputs = [output for answer in answers for output in answer]
    if len(outputs) != len(wanted):
        # Which of them is whose, nobody knows.
        raise InternalError("The token's worker answered another number of items.")
    if len(wanted) == len(inputs):
        return outputs
    remaining = iter(outputs)
    return [value if isinstance(value, Fault) else next(remaining) for value in inputs]
