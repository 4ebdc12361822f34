"""docs/errors.md has a row for every code, and no row for a code that there is not."""

import re
from pathlib import Path

import pytest

from keycustody.errors import BY_CODE

_ROW = re.compile(r"^\| `([A-Z_]+)` \| `(\w+)` \| (yes|no) \| ([^|]+) \| ([^|]+) \|$")
_LINES = (Path(__file__).parents[2] / "docs" / "errors.md").read_text().splitlines()
_ROWS = {match[1]: match for line in _LINES if (match := _ROW.match(line))}


def test_every_code_has_one_row() -> None:
    assert sorted(_ROWS) == sorted(BY_CODE)
    assert sum(line.startswith("| `") for line in _LINES) == len(BY_CODE)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_row_says_what_the_class_says(code: str) -> None:
    error = BY_CODE[code]
    _, name, again, meaning, advice = _ROWS[code].groups()
    assert name == error.__name__
    assert again == ("yes" if error.retryable else "no")
    assert meaning.strip() == " ".join((error.__doc__ or "").split())
    assert advice.strip().endswith(".")
