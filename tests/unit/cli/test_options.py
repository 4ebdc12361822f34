"""Arguments that are more than a word: contexts, sockets, files."""

from pathlib import Path

import pytest

from keycustody.cli import files, options
from keycustody.errors import FileUnusable, InvalidContext


def test_a_context_value_may_hold_anything_but_the_first_equals_sign() -> None:
    assert options.context_of(["a=b", "c=", "d=e=f"]) == {"a": "b", "c": "", "d": "e=f"}


@pytest.mark.parametrize("pairs", [["a"], [""], ["a=1", "a=1"]], ids=["bare", "empty", "twice"])
def test_a_context_that_is_not_pairs_is_refused(pairs: list[str]) -> None:
    with pytest.raises(InvalidContext):
        options.context_of(pairs)


def test_the_operators_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(options.SOCKET_VARIABLE, raising=False)
    monkeypatch.delenv(options.ADMIN_VARIABLE, raising=False)

    assert options.admin_socket(None) == Path("/run/keycustody/admin/agent.sock")
    monkeypatch.setenv(options.SOCKET_VARIABLE, "/run/k/demo/agent.sock")
    assert options.admin_socket(None) == Path("/run/k/admin/agent.sock")
    monkeypatch.setenv(options.ADMIN_VARIABLE, "/elsewhere/agent.sock")
    assert options.admin_socket(None) == Path("/elsewhere/agent.sock")
    assert options.admin_socket(Path("/given")) == Path("/given")


def test_a_result_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")

    files.write(str(target), b"new")

    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("target", ["", "missing/out"], ids=["folder", "no-folder"])
def test_a_result_that_cannot_be_written_leaves_nothing(tmp_path: Path, target: str) -> None:
    with pytest.raises(FileUnusable):
        files.write(str(tmp_path / target), b"x")

    assert list(tmp_path.iterdir()) == []
