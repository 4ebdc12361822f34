"""Who administers, and the records of what they do: intent before, outcome after."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from keycustody.custody.audit import draft
from keycustody.custody.lifecycle.changes import Change
from keycustody.custody.operation import AuditLog
from keycustody.errors import InternalError, KeycustodyError


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers, how that is known, and by which rules, for the record; `request` ties the
    records of one change together."""

    principal: str
    rules: str
    via: str = "command"
    request: str = ""


def command_line(rules: str) -> Actor:
    """Return the actor of a command: the operating system's user."""
    return Actor(f"uid:{os.geteuid()}", rules)


@asynccontextmanager
async def recorded(
    audit: AuditLog, actor: Actor, operation: str, what: str, *, key: str = "", version: int = 0
) -> AsyncIterator[list[str]]:
    """Record the intent, run the block, record its outcome, whatever it is. What the block adds to
    the list is part of the outcome."""
    request = actor.request or secrets.token_hex(16)

    notes: list[str] = []

    async def record(detail: str, result: str = "OK") -> None:
        came = "".join(f" ({note})" for note in notes if note)
        await audit.append(
            draft(
                request=request,
                principal=actor.principal,
                via=actor.via,
                operation=operation,
                rules=actor.rules,
                key=key,
                version=version,
                result=result,
                detail=f"{detail}: {what}{came}",
            )
        )

    await record("intent")
    try:
        yield notes
    except KeycustodyError as error:
        await record("failed", error.code)
        raise
    except BaseException:
        await record("failed", InternalError.code)
        raise
    await record("done")


async def refused(audit: AuditLog, actor: Actor, change: Change, error: KeycustodyError) -> None:
    """Record a change that was refused before anything was done. Of one that came through a socket
    the request's own record says so."""
    if actor.request:
        return
    await audit.append(
        draft(
            request=secrets.token_hex(16),
            principal=actor.principal,
            via=actor.via,
            operation=change.operation,
            rules=actor.rules,
            key=getattr(change, "name", ""),
            version=getattr(change, "version", 0),
            result=error.code,
            detail="refused",
        )
    )
