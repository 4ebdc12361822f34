"""What is done about each code that a module can answer: the one table (PKCS#11 v3.1, 5.1.6 on).

Codes are named as in PKCS#11; one without a name is its number in hex ("0x80000012"). A profile may
say otherwise of single codes (`Profile.remedies`). What is in no table is an answer to the request
and not a fault of the token, unless the code is a vendor's own.

Who acts: the worker itself asks a second time, and finds keys again; all else is the supervisor's,
because it takes a PIN or another process. Whatever the remedy, a request that may be repeated is
begun twice at most by workers, and one that may not be is answered
(`keycustody.token.api.NOT_IDEMPOTENT`).
"""

from collections.abc import Mapping
from enum import StrEnum


class Remedy(StrEnum):
    """In the order of what they cost."""

    #: Said twice in the same session, it is the answer: to the request, to its data, or lasting.
    GIVE_UP = "give-up"
    #: Nobody knows why: once more in the same session, then a new process.
    RETRY = "retry"
    #: Handles died: find and check the keys again, then once more; then a new process.
    FIND = "find"
    #: The session died, and with the only session of a process its login: open one and log in, in
    #: the same process, under the PIN guard.
    REOPEN = "reopen"
    #: The session lives and nobody is logged in: the same.
    LOGIN = "login"
    #: Only finalising and initialising the module again helps: a new process does that.
    RENEW = "renew"


REMEDIES: Mapping[str, Remedy] = {
    "CKR_GENERAL_ERROR": Remedy.RETRY,
    "CKR_FUNCTION_FAILED": Remedy.RETRY,
    "CKR_FUNCTION_CANCELED": Remedy.RETRY,
    "CKR_CANCEL": Remedy.RETRY,
    "CKR_BUFFER_TOO_SMALL": Remedy.RETRY,
    # Codes for a key or an object in the wrong state mean a handle that now names something else.
    "CKR_OBJECT_HANDLE_INVALID": Remedy.FIND,
    "CKR_KEY_HANDLE_INVALID": Remedy.FIND,
    "CKR_WRAPPING_KEY_HANDLE_INVALID": Remedy.FIND,
    "CKR_UNWRAPPING_KEY_HANDLE_INVALID": Remedy.FIND,
    "CKR_SESSION_HANDLE_INVALID": Remedy.REOPEN,
    "CKR_SESSION_CLOSED": Remedy.REOPEN,
    # An operation was left unfinished, and 2.40 knows no other way to cancel it.
    "CKR_OPERATION_ACTIVE": Remedy.REOPEN,
    "CKR_OPERATION_NOT_INITIALIZED": Remedy.REOPEN,
    "CKR_OPERATION_CANCEL_FAILED": Remedy.REOPEN,
    "CKR_SESSION_READ_ONLY": Remedy.REOPEN,
    "CKR_USER_NOT_LOGGED_IN": Remedy.LOGIN,
    "CKR_DEVICE_ERROR": Remedy.RENEW,
    "CKR_DEVICE_MEMORY": Remedy.RENEW,
    "CKR_DEVICE_REMOVED": Remedy.RENEW,
    "CKR_HOST_MEMORY": Remedy.RENEW,
    "CKR_TOKEN_NOT_PRESENT": Remedy.RENEW,
    "CKR_TOKEN_NOT_RECOGNIZED": Remedy.RENEW,
    "CKR_TOKEN_RESOURCE_EXCEEDED": Remedy.RENEW,
    "CKR_SLOT_ID_INVALID": Remedy.RENEW,
    "CKR_SESSION_COUNT": Remedy.RENEW,
    "CKR_CRYPTOKI_NOT_INITIALIZED": Remedy.RENEW,
    "CKR_CRYPTOKI_ALREADY_INITIALIZED": Remedy.RENEW,
    "CKR_LIBRARY_LOAD_FAILED": Remedy.RENEW,
    "CKR_FIPS_SELF_TEST_FAILED": Remedy.RENEW,
    "CKR_FUNCTION_NOT_PARALLEL": Remedy.RENEW,
    "CKR_MUTEX_BAD": Remedy.RENEW,
    "CKR_MUTEX_NOT_LOCKED": Remedy.RENEW,
    "CKR_CANT_LOCK": Remedy.RENEW,
    # Somebody else logged in within this process: nothing of ours did.
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": Remedy.RENEW,
    "CKR_USER_TOO_MANY_TYPES": Remedy.RENEW,
    # Said at login, these are `PinIncorrect` and its like before this table is asked. Said by an
    # operation, the login is over, and only the guard may decide on another one.
    "CKR_PIN_EXPIRED": Remedy.LOGIN,
    "CKR_PIN_INCORRECT": Remedy.LOGIN,
    "CKR_PIN_LOCKED": Remedy.LOGIN,
}

#: From here on codes are vendors' own (PKCS#11 v3.1, CKR_VENDOR_DEFINED): nobody knows why.
_VENDOR_DEFINED = 0x80000000


def remedy(code: str, overrides: Mapping[str, Remedy]) -> Remedy:
    """Return what to do about a code; `overrides` is a profile's."""
    found = overrides.get(code) or REMEDIES.get(code)
    if found is not None:
        return found
    vendors = code.startswith("0x") and int(code, 16) >= _VENDOR_DEFINED
    return Remedy.RETRY if vendors else Remedy.GIVE_UP
