"""Mutual TLS: what gRPC is given for its handshakes, and what it tells of each caller.

gRPC verifies a client's certificate at the handshake only, against the authorities of that moment,
and offers neither a lowest TLS version nor revocation lists. So each call is judged again by what
holds now (`keycustody.custody.identity.judge`); the handshake is a first filter, and what fails
there reaches nobody here. The files are looked at before each handshake and each call. The time is
the agent's own, which never goes backwards: gRPC's handshake asks the system's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import grpc

from keycustody.config import TlsSettings
from keycustody.custody.identity.certificates import (
    AgentCertificate,
    Watched,
    agent_certificate,
    trust,
)
from keycustody.custody.identity.judge import Directory, Judge, Known, Shown
from keycustody.service.dispatch import Context


class TlsFiles:
    """The agent's certificate and whom it trusts, each as last read whole and found good.

    Apart, so that half a renewal of the certificate keeps no revocation list from being read.
    Raises `CertificateUnusable` and `InsecurePermissions` if they cannot be used from the start.
    """

    def __init__(self, tls: TlsSettings, clock: Callable[[], datetime]) -> None:
        self.addresses = tls.listen
        self._clock = clock
        self._agent = Watched((tls.certificate, tls.key), lambda: agent_certificate(tls, clock()))
        trusted = (tls.client_ca,) if tls.crl is None else (tls.client_ca, tls.crl)
        self._trust = Watched(trusted, lambda: trust(tls))
        self._judge = Judge()

    def findings(self) -> Sequence[str]:
        """Why files are not used as they are now."""
        self._agent.current()
        self._trust.current()
        return [watched.problem for watched in (self._agent, self._trust) if watched.problem]

    def credentials(self) -> grpc.ServerCredentials:
        """What a port of gRPC's serves with: looked at anew for each handshake.

        gRPC is told of a change only where there is one: it crashes (1.85) when one handshake
        replaces what another is about to use, and would do so at each.
        """
        given = self._material()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if (now := self._material()) == given:
                return None
            given = now
            return _configuration(*now)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(*given),
            changed,  # type: ignore[arg-type]  # None is what "unchanged" is called
            require_client_authentication=True,
        )

    def identify(self, context: Context, directory: Directory) -> Known:
        """Return who is calling, by what holds now."""
        shown = _shown(context.auth_context())
        return self._judge.judge(shown, self._trust.current(), directory, self._clock())

    def _material(self) -> tuple[bytes, bytes, bytes]:
        """The key, its chain, and whose certificates are let in."""
        agent: AgentCertificate = self._agent.current()
        return agent.key, agent.chain, self._trust.current().pem


def _configuration(key: bytes, chain: bytes, roots: bytes) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


def by_certificate(
    files: TlsFiles, directory: Callable[[], Directory]
) -> Callable[[Context], Known]:
    """Return what identifies callers of TLS listeners, by the mapping in force at each call."""
    return lambda context: files.identify(context, directory())


def _shown(auth: Mapping[str, Iterable[bytes]]) -> Shown:
    version, certificate, chain = (
        b"".join(auth.get(name, ()))
        for name in ("ssl_tls_version", "x509_pem_cert", "x509_pem_cert_chain")
    )
    return Shown(version.decode("ascii", "replace") or "no TLS", certificate, chain)
