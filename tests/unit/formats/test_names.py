import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.errors import InvalidRequest
from keycustody.formats.names import check_key_name, check_version

GOOD = ["a", "0", "a.b_c-d", "release", "a" * 63, "a" * 64, "9" + "-" * 63, "a..", "a.v1"]
BAD = [
    "",
    "a" * 65,
    "A",
    "aB",
    ".a",
    "_a",
    "-a",
    "a b",
    "a/b",
    "a:b",
    "keycustody:delivery",
    "a\n",
    "a\0",
    "\na",
    "é",
    "a\u0663",  # a digit to str.isdigit, and to \d
    "\uff41",  # a fullwidth a
    "a\udc80",
]


@pytest.mark.parametrize("name", GOOD)
def test_key_names(name: str) -> None:
    check_key_name(name)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_what_is_no_key_name(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_key_name(name)


@pytest.mark.parametrize("name", [None, b"release", 1, ["a"]], ids=repr)
def test_a_key_name_is_text(name: object) -> None:
    with pytest.raises(InvalidRequest, match="A key name is text, not"):
        check_key_name(name)  # type: ignore[arg-type]


@given(st.text(max_size=70))
def test_a_name_that_passes_is_plain_ascii(name: str) -> None:
    try:
        check_key_name(name)
    except InvalidRequest:
        return
    assert 1 <= len(name.encode()) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name[0] not in "._-"


@pytest.mark.parametrize("version", [1, 2, 2**32 - 2, 2**32 - 1])
def test_versions(version: int) -> None:
    check_version(version)


@pytest.mark.parametrize("version", [0, -1, 2**32, 2**64, True, 1.0, "1", None], ids=repr)
def test_what_is_no_version(version: int) -> None:
    with pytest.raises(InvalidRequest):
        check_version(version)
