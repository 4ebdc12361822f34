"""One error tree. Every error a caller can meet has a stable code and one clear sentence.

The rules this module keeps:

* `code` is part of the public contract: it goes over the wire, into the audit record and into the
  command line's output. A code is never renamed and never reused.
* The message says what is wrong and what to do about it. It never holds a PIN, a key, plaintext,
  a CKR text or a stack trace.
* A seam promises errors of this tree and raises them `from` what it caught.

It does not know gRPC (see `keycustody.wire`) nor exit statuses (see `keycustody.cli`).
"""

from typing import ClassVar


class KeycustodyError(Exception):
    """Base of all errors; `request_id` names the audit record when the agent answered, and
    `retry_after` is how many seconds to wait, where that is known."""

    code: ClassVar[str] = "INTERNAL"
    #: May the same request succeed a little later without anybody changing anything?
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class InternalError(KeycustodyError):
    """The agent failed in a way it does not explain to clients; its log has the request id."""


# -- the caller's request ------------------------------------------------------------------------


class InvalidRequest(KeycustodyError):
    """The request is malformed, incomplete, or contradicts itself."""

    code = "INVALID_REQUEST"


class InvalidContext(InvalidRequest):
    """A context has too many pairs, too long ones, or text that is not valid."""

    code = "INVALID_CONTEXT"


class UnknownAlgorithm(InvalidRequest):
    """No algorithm of that name."""

    code = "UNKNOWN_ALGORITHM"


class AlgorithmMismatch(InvalidRequest):
    """The algorithm exists, but not for this key."""

    code = "ALGORITHM_MISMATCH"


class DigestLength(InvalidRequest):
    """A prehashed digest is not exactly as long as the algorithm's hash."""

    code = "DIGEST_LENGTH"


class MessageTooLarge(InvalidRequest):
    """A message or request is over a stated limit."""

    code = "MESSAGE_TOO_LARGE"


class InvalidPoint(InvalidRequest):
    """A public key is not a valid point of the curve that the key is on."""

    code = "INVALID_POINT"


class PermissionDenied(KeycustodyError):
    """No grant allows this principal this operation on this key."""

    code = "PERMISSION_DENIED"


class Unauthenticated(KeycustodyError):
    """Nobody that the agent knows: no valid certificate, or none that is mapped to a principal."""

    code = "UNAUTHENTICATED"


class RateExceeded(KeycustodyError):
    """The grant that would allow it allows fewer operations a second; try again a little later."""

    code = "RATE_EXCEEDED"
    retryable = True


class BudgetExceeded(KeycustodyError):
    """The grant's budget of distinct session keys is used up for this window of time."""

    code = "BUDGET_EXCEEDED"


class PolicyViolation(KeycustodyError):
    """The cryptographic policy forbids this use of the key."""

    code = "POLICY_VIOLATION"


class KeyNotFound(KeycustodyError):
    """No key, or no version of it, has that name."""

    code = "KEY_NOT_FOUND"


class KeyPurpose(KeycustodyError):
    """The key exists for another purpose."""

    code = "KEY_PURPOSE"


class KeyRevoked(KeycustodyError):
    """That version of the key was revoked or destroyed."""

    code = "KEY_REVOKED"


class KeyUnhealthy(KeycustodyError):
    """The key failed its self-test, so it is not used."""

    code = "KEY_UNHEALTHY"


class InvalidTransition(KeycustodyError):
    """A key version cannot go from its state to the one that was asked for, or not yet."""

    code = "INVALID_TRANSITION"


class KeyNotTrusted(KeycustodyError):
    """What the token holds under that name is not a key that keycustody made and recorded."""

    code = "KEY_NOT_TRUSTED"


class DecryptionFailed(KeycustodyError):
    """Wrong key, context, associated data or ciphertext: which one is not told."""

    code = "DECRYPTION_FAILED"


class WrappedKeyRejected(KeycustodyError):
    """A wrapped key was not made by this key version for this context."""

    code = "WRAPPED_KEY_REJECTED"


# -- envelopes and delivery, judged by the client --------------------------------------------------


class MalformedEnvelope(KeycustodyError):
    """The bytes are not an envelope, or not the one valid encoding of it."""

    code = "MALFORMED_ENVELOPE"


class TruncatedEnvelope(MalformedEnvelope):
    """The bytes end before the envelope's header does."""

    code = "TRUNCATED_ENVELOPE"


class UnexpectedKey(KeycustodyError):
    """The envelope is well formed, and names another key than the caller requires."""

    code = "UNEXPECTED_KEY"


class UnexpectedContext(KeycustodyError):
    """The envelope is well formed, and carries another context than the caller requires."""

    code = "UNEXPECTED_CONTEXT"


class DeliveryRejected(KeycustodyError):
    """A session key was delivered that does not belong to this request, or not sealed."""

    code = "DELIVERY_REJECTED"


class SessionEnded(KeycustodyError):
    """The session is closed, or its lease ended and could not be renewed."""

    code = "SESSION_ENDED"


class InvalidSignature(KeycustodyError):
    """The signature does not verify."""

    code = "INVALID_SIGNATURE"


class FileUnusable(KeycustodyError):
    """A file cannot be read or written; nothing was left behind."""

    code = "FILE_UNUSABLE"


# -- between client and agent ----------------------------------------------------------------------


class AgentUnreachable(KeycustodyError):
    """No agent answers on the socket, or the socket may not be used."""

    code = "AGENT_UNREACHABLE"
    retryable = True
    #: Nobody is there now: whoever waits a little may find the agent back.
    away = False


class AgentGone(KeycustodyError):
    """The agent went away in the middle of a call; whether it took effect is not known."""

    code = "AGENT_GONE"
    retryable = True


class AgentNotTrusted(KeycustodyError):
    """The agent's certificate is not the one, or not of the authority, that the client requires."""

    code = "AGENT_NOT_TRUSTED"


class TokenNotTrusted(KeycustodyError):
    """Session keys come from another token than the one that the client knows."""

    code = "TOKEN_NOT_TRUSTED"


class DeadlineExceeded(KeycustodyError):
    """The call's deadline passed before an answer."""

    code = "DEADLINE_EXCEEDED"
    retryable = True


class Cancelled(KeycustodyError):
    """The caller gave up."""

    code = "CANCELLED"


class Unimplemented(KeycustodyError):
    """This agent does not know the method."""

    code = "UNIMPLEMENTED"


class Overloaded(KeycustodyError):
    """The agent or the token has more work than it accepts."""

    code = "OVERLOADED"
    retryable = True


# -- settings and state of the agent ---------------------------------------------------------------


class ConfigInvalid(KeycustodyError):
    """The settings file does not say what it must; the message has one line for each finding."""

    code = "CONFIG_INVALID"


class CertificateUnusable(KeycustodyError):
    """A certificate, its key, or a revocation list of the settings cannot be used."""

    code = "CERTIFICATE_UNUSABLE"


class InsecurePermissions(KeycustodyError):
    """A secret or state is open to others."""

    code = "INSECURE_PERMISSIONS"


class StateLocked(KeycustodyError):
    """Another agent or command holds the state folder."""

    code = "STATE_LOCKED"


class SocketUnusable(KeycustodyError):
    """A socket path is too long, or cannot be made."""

    code = "SOCKET_UNUSABLE"


class AuditUnavailable(KeycustodyError):
    """The audit record cannot be written, so nothing is answered."""

    code = "AUDIT_UNAVAILABLE"
    retryable = True


class AuditChainBroken(KeycustodyError):
    """The audit log is not what was written."""

    code = "AUDIT_CHAIN_BROKEN"


class AuditTruncated(AuditChainBroken):
    """The audit log ends before a signed head that was expected in it."""

    code = "AUDIT_TRUNCATED"


# -- token -----------------------------------------------------------------------------------------


class ModuleUnusable(KeycustodyError):
    """The PKCS#11 module is missing or is not one."""

    code = "MODULE_UNUSABLE"


class TokenNotFound(KeycustodyError):
    """No token with the label or serial that the settings name."""

    code = "TOKEN_NOT_FOUND"


class TokenInitialised(KeycustodyError):
    """The token is already initialised."""

    code = "TOKEN_INITIALISED"


class TokenNotProvisioned(KeycustodyError):
    """The token lacks what `keycustody keys apply` makes: its sentinel or the agent's own key."""

    code = "TOKEN_NOT_PROVISIONED"


class TokenUnavailable(KeycustodyError):
    """The token or its module failed; idempotent requests may be tried again."""

    code = "TOKEN_UNAVAILABLE"
    retryable = True


class PinIncorrect(KeycustodyError):
    """The token refused the PIN."""

    code = "PIN_INCORRECT"


class PinGuarded(KeycustodyError):
    """This PIN was refused before, or its logins broke off, and is not tried again."""

    code = "PIN_GUARDED"


class PinUnavailable(KeycustodyError):
    """The PIN source is missing, empty or cannot be read."""

    code = "PIN_UNAVAILABLE"


class UnsupportedByToken(KeycustodyError):
    """The token's profile has no mechanism for this."""

    code = "UNSUPPORTED_BY_TOKEN"


def _tree(root: type[KeycustodyError]) -> list[type[KeycustodyError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


#: Every code and its class. `KeycustodyError` itself is no entry: INTERNAL means `InternalError`.
BY_CODE: dict[str, type[KeycustodyError]] = {
    error.code: error for error in _tree(KeycustodyError) if error is not KeycustodyError
}
