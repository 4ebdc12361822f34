"""File descriptors: as many as the connections that the settings allow."""

import resource

import structlog

from keycustody.config import Settings

#: For the journal, the workers' pipes, sockets that listen, and whatever libraries open.
_OWN = 256

_log = structlog.get_logger(__name__)


def allow_descriptors(settings: Settings) -> None:
    """Raise this process's soft limit to what may be needed, as far as the hard one lets it."""
    listeners = len(settings.socket_names) + (settings.tls is not None)
    wanted = _OWN + listeners * settings.limits.connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    given = wanted if hard == infinite else min(wanted, hard)
    if soft == infinite or soft >= given:
        given = soft
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    if given != infinite and given < wanted:
        _log.warning("descriptors.few", allowed=given, wanted=wanted)
