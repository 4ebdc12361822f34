"""Looking at the token for a change.

What is missing from a listing may be missing from that listing only. So a plan has steps, a refusal
or findings where two looks in a row say the same.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from keycustody.custody.access.rules import Rules
from keycustody.custody.keys.catalogue import View
from keycustody.custody.keys.evidence import Finding
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.lifecycle.changes import Change
from keycustody.custody.lifecycle.planning import Survey, plan
from keycustody.custody.lifecycle.steps import Action, Step
from keycustody.errors import KeycustodyError, TokenUnavailable
from keycustody.token.api import Scan, Scanned, Token
from keycustody.token.profiles import Profile

#: Seconds that one step may take: generating RSA-4096 in hardware can need a minute.
STEP_TIMEOUT = 300.0
#: How often, and after how many seconds, a token that shows something else each time is looked at.
_LOOKS, _PAUSE = 10, 0.2
#: How often a scan is tried.
_SCANS = 3


@dataclass(frozen=True, slots=True)
class _Said:
    """What one look at the token comes to."""

    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    refusal: str = ""
    error: KeycustodyError | None = field(default=None, compare=False)


_NOTHING = _Said()


@dataclass(frozen=True, slots=True)
class Lookout:
    """Looks at one token; `rules` gives those in force, `clock` the time."""

    token: Token
    profile: Profile
    memory: MemoryFile
    rules: Callable[[], Rules]
    clock: Callable[[], datetime]

    async def survey(self) -> Survey:
        """Look once. Raises what the token raises."""
        scan = await self._scan()
        rules = self.rules()
        view = View(
            rules.keys,
            self.profile,
            self.memory.memory,
            self.clock(),
            rules.limits.scan_seconds,
        )
        return Survey.of(scan, view)

    async def planned(self, change: Change) -> tuple[tuple[Step, ...], Survey]:
        """Return the steps of a change, and what they follow from.

        Raises what `planning.plan` does, `PolicyViolation` if a step would make a version that the
        policy refuses, and `TokenUnavailable` if no two looks agree.
        """
        survey, said, agreed = await self._seen_twice(change)
        if said.error is not None:
            raise said.error
        if said.steps and not agreed:
            raise TokenUnavailable(
                "The token shows something else each time that it is looked at. Nothing was "
                "changed; ask again."
            )
        return said.steps, survey

    async def settled(self) -> Survey:
        """Look until two looks agree, or there is nothing amiss."""
        survey, _, _ = await self._seen_twice(None)
        return survey

    async def _scan(self) -> Scanned:
        for left in range(_SCANS - 1, -1, -1):
            try:
                return await self.token.call(Scan(), timeout=STEP_TIMEOUT)
            except TokenUnavailable:
                # An object that another agent makes or destroys meanwhile can fail a whole scan.
                if not left:
                    raise
                await asyncio.sleep(_PAUSE)
        raise AssertionError("unreachable")

    async def _seen_twice(self, change: Change | None) -> tuple[Survey, _Said, bool]:
        """Look until there is nothing to say, or two looks in a row say the same of a change, or of
        the token alone; returns the last one, what it says, and whether it came to that."""
        survey = await self.survey()
        said = self._said(change, survey)
        for number in range(_LOOKS):
            if said == _NOTHING:
                return survey, said, True
            if number:
                # Somebody is changing the token, or it does not show all of it.
                await asyncio.sleep(_PAUSE)
            before, survey = said, await self.survey()
            said = self._said(change, survey)
            if said == before:
                return survey, said, True
        return survey, said, False

    def _said(self, change: Change | None, survey: Survey) -> _Said:
        try:
            steps = [] if change is None else plan(change, survey)
            self._check_policy(steps)
        except KeycustodyError as error:
            return _Said((), (), f"{error.code} {error.message}", error)
        return _Said(tuple(steps), survey.sight.drift)

    def _check_policy(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.action is Action.CREATE and (verdict := self.rules().verdicts.get(step.key)):
                verdict.check_creation(self.clock())
