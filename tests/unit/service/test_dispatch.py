"""What is counted before it is parsed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.service.dispatch import _MAX_FIELDS, _crowded
from keycustody.v1 import signing_service_pb2 as pb


def request(items: int, size: int) -> bytes:
    item = pb.SignItem(message=bytes(size))
    return pb.SignRequest(key="release", items=[item] * items).SerializeToString()


@pytest.mark.parametrize(
    ("items", "size", "crowded"),
    [
        (1, 2**20, False),
        (1024, 1000, False),
        (4096, 32, False),
        (_MAX_FIELDS - 1, 32, False),
        (_MAX_FIELDS, 32, True),
        (10_000, 0, False),  # too small to matter; refused once it is parsed
        (100_000, 0, True),
    ],
)
def test_fields_are_counted(items: int, size: int, crowded: bool) -> None:
    assert _crowded(request(items, size)) is crowded


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=255))
def test_no_bytes_upset_it(data: bytes, filler: int) -> None:
    assert _crowded(data + bytes([filler]) * 70_000) in (True, False)
    assert _crowded(data + os.urandom(70_000)) in (True, False)
