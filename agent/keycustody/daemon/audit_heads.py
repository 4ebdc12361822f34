"""The journal and its signed head, for the daemon and for commands that end with a head."""

import asyncio

import structlog

from keycustody.config import Settings
from keycustody.custody.audit import Heads, Journal, verifier_of
from keycustody.custody.keys.catalogue import Catalogue, build
from keycustody.custody.state_folder import hold
from keycustody.daemon.wiring import Prompt, pool
from keycustody.errors import KeycustodyError, TokenNotProvisioned
from keycustody.token import profiles
from keycustody.token.api import Scan, Token

#: Seconds that one scan may take.
_TIMEOUT = 60.0

_log = structlog.get_logger(__name__)


def journal_of(settings: Settings) -> Journal:
    """Return the journal that these settings describe, not yet open."""
    return Journal(settings.agent.state_dir, settings.audit.rotate_bytes)


async def sign_head(settings: Settings, journal: Journal, token: Token) -> None:
    """Sign the head of what a command recorded. A token that cannot only delays it: the next
    command or agent signs."""
    try:
        version = (await _catalogue(settings, token)).audit
    except KeycustodyError as error:
        _log.warning("audit.head_not_signed", reason=error.message)
        return
    await Heads(journal, token, lambda: version, settings.audit).sign()


def audit_key(settings: Settings, *, prompt: Prompt | None) -> tuple[str, str]:
    """Return the verifier key of the audit heads, and where it is on which token.

    Works without a running agent, and not beside one. Raises `TokenNotProvisioned` if there is no
    audit key that can be believed.
    """
    with hold(settings.agent.state_dir):
        return asyncio.run(_audit_key(settings, prompt))


async def _audit_key(settings: Settings, prompt: Prompt | None) -> tuple[str, str]:
    async with pool(settings, prompt, 1) as token:
        catalogue = await _catalogue(settings, token)
        info = token.info
    if catalogue.audit is None:
        raise TokenNotProvisioned(catalogue.unsigned)
    where = f"{catalogue.audit.ref.label} on token {info.label} (serial {info.serial})"
    return verifier_of(catalogue.audit).encode(), where


async def _catalogue(settings: Settings, token: Token) -> Catalogue:
    scan = await token.call(Scan(), timeout=_TIMEOUT)
    return build(scan, settings.keys, profiles.load(settings.token.profile))
