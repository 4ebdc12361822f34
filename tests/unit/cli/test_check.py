"""`keycustody check` as a pipeline runs it: lines or JSON, and an exit status."""

import json
from pathlib import Path

import pytest

from tests.unit.check.planted import settings, write
from tests.unit.cli.test_command import keycustody

_WARNING = ('["release", "archive"]', '["release"]')
_ERROR = ('owner = "release"\n', "")


@pytest.mark.parametrize(
    ("plant", "options", "status", "summary"),
    [
        (None, (), 0, "0 errors, 0 warnings."),
        (None, ("--strict",), 0, "0 errors, 0 warnings."),
        (_WARNING, (), 0, "0 errors, 1 warning."),
        (_WARNING, ("--strict",), 1, "0 errors, 1 warning."),
        (_ERROR, (), 1, "1 error, 0 warnings."),
    ],
)
def test_the_status_says_whether_there_are_errors(
    tmp_path: Path,
    plant: tuple[str, str] | None,
    options: tuple[str, ...],
    status: int,
    summary: str,
) -> None:
    path = write(tmp_path)
    if plant:
        settings(*plant)(tmp_path)

    done = keycustody("check", str(path), *options)

    assert (done.returncode, done.stderr) == (status, b"")
    *lines, last = done.stdout.decode().splitlines()
    assert last == f"1 file: {summary}"
    assert len(lines) == (plant is not None)


def test_a_line_says_file_setting_and_rule(tmp_path: Path) -> None:
    path = write(tmp_path)
    settings(*_ERROR)(tmp_path)

    line = keycustody("check", str(path)).stdout.decode().splitlines()[0]

    assert line == (
        f"{path}: keys.release.owner: error: the policy requires that somebody answers for the "
        "key; say who. [owner]"
    )


def test_json_has_the_same_in_its_documented_members(tmp_path: Path) -> None:
    path = write(tmp_path)
    settings(*_ERROR)(tmp_path)

    done = keycustody("check", str(path), "--json")

    document = json.loads(done.stdout)
    (finding,) = document.pop("findings")
    assert done.returncode == 1
    assert document == {"schema": 1, "files": [str(path)], "errors": 1, "warnings": 0}
    assert finding.pop("message").startswith("the policy requires")
    assert finding == {
        "file": str(path),
        "path": "keys.release.owner",
        "rule": "owner",
        "severity": "error",
    }


def test_what_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    done = keycustody("check", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert b"none.toml: error: cannot be read: No such file or directory." in done.stdout
