"""Key names and key versions: docs/format.md section 1.

A name that passes needs no quoting in a shell, a URL or a policy, and cannot be mistaken for one of
the agent's own keys, whose names hold a colon.
"""

import re
from typing import Final

from keycustody.errors import InvalidRequest

KEY_NAME_MAX_BYTES: Final = 64
#: To be used with `fullmatch`: `$` would let a trailing newline through.
KEY_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: 0 means "newest" on the wire and is never stored.
VERSION_MIN: Final = 1
VERSION_MAX: Final = 2**32 - 1


def check_key_name(name: str) -> None:
    """Raise `InvalidRequest` unless `name` is a key name: 1 to 64 of `[a-z0-9._-]`, the first a
    letter or a digit."""
    if not isinstance(name, str):
        raise InvalidRequest(f"A key name is text, not {type(name).__name__}.")
    if not KEY_NAME.fullmatch(name):
        raise InvalidRequest(
            "A key name is 1 to 64 characters of a-z, 0-9, '.', '_' and '-', "
            "and starts with a letter or a digit."
        )


def check_version(version: int) -> None:
    """Raise `InvalidRequest` unless `version` is a stored key version: 1 to 2**32 - 1."""
    # Not isinstance: bool is an int to Python, and True would be stored as version 1.
    if type(version) is not int:
        raise InvalidRequest(f"A key version is a whole number, not {type(version).__name__}.")
    if not VERSION_MIN <= version <= VERSION_MAX:
        raise InvalidRequest("A key version is a number from 1 to 4294967295.")
