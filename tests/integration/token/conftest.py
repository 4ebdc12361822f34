"""Pools on real tokens."""

from collections.abc import Iterator

import pytest

from tests.integration.token.opened import OpenedPool, opened
from tests.softhsm import SoftHsmToken


@pytest.fixture(scope="module")
def token(module_token: SoftHsmToken) -> Iterator[OpenedPool]:
    """Two workers on this module's token."""
    with opened(module_token) as pool:
        yield pool


@pytest.fixture
def fresh(fresh_token: SoftHsmToken) -> Iterator[OpenedPool]:
    """Two workers on this test's token."""
    with opened(fresh_token) as pool:
        yield pool
