"""The agent's surroundings, as far as the settings alone tell: callers, listeners, delivery."""

import ipaddress
from collections.abc import Iterator

from keycustody.check.subject import Subject
from keycustody.config.findings import Finding


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is careless."""
    settings = subject.settings
    if settings.policy is None:
        reason = "name a cryptographic policy, such as hsm_config/crypto_policy.toml."
        yield subject.finding("policy", "policy-missing", reason)
    if settings.token.delivery == "plain":
        reason = 'session keys cross the agent in clear; use "sealed" where the token can.'
        yield subject.finding("token.delivery", "plain-delivery", reason)
    granted = {principal for grant in settings.grants for principal in grant.principals}
    for name in settings.principals:
        if name not in granted:
            reason = "no grant names it; remove it, or grant it something."
            yield subject.finding(f"principals.{name}", "principal-unused", reason)
    yield from _listeners(subject)


def _listeners(subject: Subject) -> Iterator[Finding]:
    tls = subject.settings.tls
    if tls is None:
        return
    hosts = {
        number: address.rpartition(":")[0].strip("[]")
        for number, address in enumerate(tls.listen)
        if not address.startswith("unix:")
    }
    for number, host in hosts.items():
        if _unspecified(host):
            reason = f"{tls.listen[number]} is every address of this machine; name the one needed."
            yield subject.finding(f"tls.listen.{number}", "listener-wildcard", reason)
    if hosts and tls.crl is None:
        reason = "without a revocation list, a stolen certificate is good until it expires."
        yield subject.finding("tls.crl", "listener-without-crl", reason)


def _unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "*")
