"""Tokens behind the shim."""

from pathlib import Path

import pytest

from tests.faults.control import Control, build


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def control(tmp_path: Path) -> Control:
    """What is to go wrong."""
    return Control(tmp_path / "control")
