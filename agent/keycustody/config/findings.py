"""What can be wrong with settings and their policy: one table of rules, each with a stable id.

A *finding* says which file, which member of it, which rule, and what to do. An `error` is a
weakness, or keeps the agent from starting or a key from being used; a `warning` deserves a look.
Ids are part of the public interface: pipelines and exceptions name them, so none is renamed or
reused. docs/policy.md shows this table; a test compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SETTINGS_INVALID: Final = "settings-invalid"
POLICY_INVALID: Final = "policy-invalid"


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"


class Refuses(StrEnum):
    """What the agent refuses while the rule is broken."""

    NOTHING = "nothing"
    #: What protects something new: sign, agree, generate. Old data can still be read.
    NEW = "sign, agree, generate"
    ALL = "every use"
    NAMING = "requests that name it"
    START = "to start"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `exceptions`: may the policy hold dated exceptions to it?"""

    id: str
    severity: Severity
    meaning: str
    refuses: Refuses = Refuses.NOTHING
    exceptions: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong: `path` is the member's, such as `keys.archive.algorithm`."""

    file: str
    path: str
    rule: str
    message: str

    @property
    def severity(self) -> Severity:
        """That of its rule."""
        return RULES[self.rule].severity

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return f"{where}: {self.severity.value}: {self.message} [{self.rule}]"


def _policy(id: str, meaning: str, refuses: Refuses = Refuses.NOTHING) -> Rule:  # noqa: A002  # its name
    return Rule(id, Severity.ERROR, meaning, refuses, exceptions=True)


def _error(id: str, meaning: str) -> Rule:  # noqa: A002  # its name
    return Rule(id, Severity.ERROR, meaning)


def _start(id: str, meaning: str) -> Rule:  # noqa: A002  # its name
    return Rule(id, Severity.ERROR, meaning, Refuses.START)


def _warning(id: str, meaning: str) -> Rule:  # noqa: A002  # its name
    return Rule(id, Severity.WARNING, meaning)


_RULES = (
    _error(SETTINGS_INVALID, "The settings file does not say what it must; the agent refuses it."),
    _error(POLICY_INVALID, "The policy file does not say what it must; the agent refuses it."),
    # What the policy says of a key, or of what a request names.
    _policy("purpose", "The policy has no table for keys of that purpose.", Refuses.ALL),
    _policy("key-algorithm", "The policy does not permit that kind of key.", Refuses.ALL),
    _policy(
        "request-algorithm",
        "The key's settings let requests name an algorithm that the policy does not permit.",
        Refuses.NAMING,
    ),
    _policy("algorithm-status", "The status is below `minimum_status`.", Refuses.NEW),
    Rule(
        "algorithm-legacy",
        Severity.ERROR,
        "A legacy algorithm only verifies, decrypts and unwraps, with or without a policy.",
        Refuses.NEW,
    ),
    _policy("prehashed", "The key takes digests, and the policy does not permit it.", Refuses.NEW),
    _policy("lease", "Session keys may be used for longer than the policy permits.", Refuses.NEW),
    _policy(
        "lifetime",
        "The version is older than the policy permits. Only an agent can tell, from the token.",
        Refuses.NEW,
    ),
    _policy("owner", "Nobody answers for the key."),
    _policy("rotation", "The key has no rotation period, or one beyond the longest lifetime."),
    _policy("grant-context", "A grant on session keys requires no context."),
    _policy("grant-budget", "A grant of unwrap has no budget."),
    # Exceptions.
    _error("exception-expired", "The exception's day has passed: it counts no more."),
    _error(
        "exception-too-long", "The exception ends later than `longest_exception_days` from now."
    ),
    _warning("exception-expiring", "The exception ends soon."),
    _warning("exception-unused", "Nothing needs the exception, so it would hide what comes later."),
    # Grants and callers.
    _error("grant-everybody", "Every principal may use every key."),
    _error("grant-undone", "Another grant allows the same without this one's conditions."),
    _warning("grant-shadowed", "Grants before it allow all of it already."),
    _warning("grant-expired", "Its `not_after` has passed: it allows nothing."),
    _warning("budget-void", "Another budget of the grant is always the tighter one."),
    _warning("principal-unused", "No grant names the principal."),
    _warning("key-unused", "No grant names the key."),
    # The agent and its surroundings.
    _warning("policy-missing", "The settings name no policy."),
    _warning("plain-delivery", "Session keys are delivered in clear."),
    _warning("listener-without-crl", "A stolen certificate cannot be revoked."),
    _warning("listener-wildcard", "The agent listens on every address of the machine."),
    _start("config-permissions", "Anybody may change the settings or the policy."),
    _start("pin-permissions", "Others may read the PIN."),
    _start("pin-folder", "Others may replace the PIN's file."),
    _error("tls-key-permissions", "Others may read the private key."),
    _start("state-permissions", "Others may open the state folder."),
    _start("module-permissions", "Anybody may replace the PKCS#11 module, which sees the PIN."),
    _error("certificate-unusable", "It is not a certificate or revocation list in PEM."),
    _error("certificate-expired", "A certificate or revocation list is not valid today."),
    _warning("certificate-expiring", "A certificate or revocation list ends soon."),
)

RULES: Final[Mapping[str, Rule]] = {rule.id: rule for rule in _RULES}
EXCEPTED: Final = tuple(rule.id for rule in _RULES if rule.exceptions)
