"""SoftHSM tokens for every suite. SoftHSM is required: nothing is skipped without it."""

import itertools
import signal

import pytest

from tests.softhsm import Provision, SoftHsmToken, provision

# Started in the background by a shell, the suite ignores SIGINT, and so does all that it starts;
# some tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def provision_token(tmp_path_factory: pytest.TempPathFactory) -> Provision:
    """Makes a token of its own each time it is called."""
    numbers = itertools.count(1)
    return lambda: provision(tmp_path_factory.mktemp(f"token{next(numbers)}"))


@pytest.fixture(scope="session")
def softhsm_token(provision_token: Provision) -> SoftHsmToken:
    """One token that all tests share: add to it, and rely on nothing that is there."""
    return provision_token()


@pytest.fixture(scope="module")
def module_token(provision_token: Provision) -> SoftHsmToken:
    """A token of this module's own."""
    return provision_token()


@pytest.fixture
def fresh_token(provision_token: Provision) -> SoftHsmToken:
    """A token of this test's own."""
    return provision_token()
