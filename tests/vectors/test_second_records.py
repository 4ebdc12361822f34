"""The vectors of the JSON formats, read by a second program."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import second_records as reader

Vector = dict[str, Any]
HERE = Path(__file__).parent
STATE, AUDIT = (
    json.loads((HERE / f"{name}.json").read_text(encoding="ascii")) for name in ("state", "audit")
)


def each(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["id"] for vector in vectors])


def bytes_of(vector: Vector, member: str) -> list[bytes]:
    return [bytes.fromhex(one) for one in vector[member]]


@each(STATE["read"])
def test_state(vector: Vector) -> None:
    assert reader.state(bytes_of(vector, "records")) == vector["state"]


@each(STATE["refuse"])
def test_state_refused(vector: Vector) -> None:
    with pytest.raises(reader.Refused, match=vector["error"]):
        reader.state(bytes_of(vector, "records"))


@each(AUDIT["verify"])
def test_audit(vector: Vector) -> None:
    assert reader.head(bytes_of(vector, "lines")) == (vector["head"], len(vector["lines"]))


@each(AUDIT["refuse"])
def test_audit_refused(vector: Vector) -> None:
    lines = bytes_of(vector, "lines")
    with pytest.raises(reader.Refused) as caught:
        reader.head(lines)
    assert caught.value.args == (vector["error"], vector["line"])
