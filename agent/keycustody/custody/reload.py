"""Reload: the agent follows its settings file, on record.

What follows the file, and how, is the daemon's matter; here is who may ask, and the record: the
intent before anything changes, and the outcome with the rules before and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from keycustody.custody.operation import Caller, Office

_log = structlog.get_logger(__name__)


class Follows(Protocol):
    """What can be made to follow the settings file."""

    async def reload(self) -> Sequence[str]:
        """Return the settings that wait for a restart; raises what keeps all as it was."""
        ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload brought: the rules in force now, and the settings that wait for a restart."""

    rules: str
    waiting: Sequence[str]


async def reload(office: Office, caller: Caller, agent: Follows) -> Reloaded:
    """Have the agent follow its settings file; only operators may ask."""
    desk = office.desk
    async with desk.operation(caller, "reload") as entry:
        entry.grant = desk.rules.decide_admin(caller.principal, "reload")
        await entry.announce("intent: follow the settings file")
        try:
            waiting = await agent.reload()
        except BaseException:
            entry.detail = "failed: the rules stay"
            raise
        rules = office.desk.rules.digest
        entry.detail = f"done: rules {desk.rules.digest} are followed by {rules}"
        _log.info("reload.done", rules=rules, waiting=list(waiting))
        return Reloaded(rules, waiting)
