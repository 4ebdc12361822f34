"""What a profile claims, its module does: run on the real one, through `Hsm`.

SoftHSM2 must be there. Another module that is not installed is skipped, and the reason says what is
missing.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keycustody.token.profiles import NAMES, load
from tests.contract import exercise, modules

_SCRIPT = Path(exercise.__file__)
_AGENT = Path(__file__).parents[2] / "agent"
#: A TPM holds few objects, and gives none back to the process that loaded them: one claim each.
_ONE_BY_ONE = {"tpm2_pkcs11"}

_NONE = base64.b64encode(b"{}").decode()
_CLAIMS = [(name, claim) for name in NAMES for claim in exercise.claims(load(name))]


class Answers:
    """What one module did, found out when first asked."""

    def __init__(self, name: str, token: modules.Provisioned) -> None:
        self._name = name
        self._token = token
        self._known: dict[str, str] = {}

    def __getitem__(self, claim: str) -> str:
        if claim not in self._known:
            together = [claim] if self._name in _ONE_BY_ONE else exercise.claims(load(self._name))
            self._known |= self._ask(list(together))
        return self._known[claim]

    def _ask(self, claims: list[str]) -> dict[str, str]:
        """Have the claims checked twice: keys are made in one process and used again in another."""
        made, first = self._run(claims, _NONE)
        _, second = self._run([claim for claim in claims if first[claim] == ""], made)
        return first | second

    def _run(self, claims: list[str], made: str) -> tuple[str, dict[str, str]]:
        token = self._token
        told = {"profile": self._name, "module": token.module, "label": token.label}
        done = subprocess.run(
            [*token.prefix, sys.executable, str(_SCRIPT)],
            input=json.dumps(told | {"pin": token.pin, "claims": claims, "made": made}),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(_AGENT), **token.environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"the module's process failed: {done.stderr[-2000:]}")
        reply = json.loads(done.stdout.splitlines()[-1])
        return reply["made"], reply["answers"]


Ask = Callable[[str], Answers]


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Set up each module when it is first asked, and keep it for the rest."""
    known: dict[str, Answers | modules.Missing] = {}
    with contextlib.ExitStack() as stack:

        def answers(name: str) -> Answers:
            if name not in known:
                set_up = modules.SET_UPS[name](tmp_path_factory.mktemp(name[:4]))
                try:
                    known[name] = Answers(name, stack.enter_context(set_up))
                except modules.Missing as missing:
                    known[name] = missing
            found = known[name]
            if isinstance(found, modules.Missing):
                if name == "softhsm2":
                    raise found
                pytest.skip(f"{name}: {found} is not there")
            return found

        yield answers


@pytest.mark.parametrize(
    ("name", "claim"), [pytest.param(name, claim, id=f"{name}-{claim}") for name, claim in _CLAIMS]
)
def test_a_module_does_what_its_profile_claims(ask: Ask, name: str, claim: str) -> None:
    assert ask(name)[claim] == ""
