"""deploy/keycustody.service, judged by systemd itself."""

import re
import shutil
import subprocess

import pytest

from tests.integration.command import PROJECT

_UNIT = PROJECT / "deploy" / "keycustody.service"


@pytest.fixture(scope="module")
def judged() -> str:
    """What `systemd-analyze security` says of the unit; needs no running systemd."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", _UNIT],
        check=False,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if "unrecognized option '--offline" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250, which brought --offline")
    return done.stdout


def test_its_exposure_is_below_one(judged: str) -> None:
    found = re.search(r"Overall exposure level for keycustody.service: ([0-9.]+)", judged)
    assert found is not None, judged
    assert float(found[1]) < 1.0


def test_whatever_it_leaves_open_is_explained(judged: str) -> None:
    _, _, explained = _UNIT.read_text().partition("# EXCEPTIONS")
    open_ones = re.findall(r"^✗ (\S+)", judged, re.MULTILINE)
    assert open_ones
    for one in open_ones:
        member, _, value = one.partition("=")
        assert member in explained, one
        assert value in explained, one
