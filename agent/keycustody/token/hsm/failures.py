"""What the module's errors are called, and what they mean to a caller.

The text of a PKCS#11 error never goes into a message: `code` keeps its name, for the table of
remedies (`keycustody.token.remedies`) and for the agent's log.
"""

import re
import sys
from types import TracebackType

from pkcs11.exceptions import (
    AnotherUserAlreadyLoggedIn,
    DataInvalid,
    DataLenRange,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionCancelled,
    FunctionFailed,
    GeneralError,
    KeyHandleInvalid,
    MechanismInvalid,
    MechanismParamInvalid,
    ObjectHandleInvalid,
    PKCS11Error,
    SlotIDInvalid,
    TokenNotRecognised,
    UnwrappingKeyHandleInvalid,
    WrappedKeyInvalid,
    WrappedKeyLenRange,
    WrappingKeyHandleInvalid,
)

from keycustody.errors import KeycustodyError, TokenUnavailable, UnsupportedByToken
from keycustody.token.remedies import Remedy

#: A handle that was good is not any more: find the key and check it again.
STALE_HANDLE = (
    ObjectHandleInvalid,
    KeyHandleInvalid,
    WrappingKeyHandleInvalid,
    UnwrappingKeyHandleInvalid,
)
#: What modules answer to bad input of an asymmetric operation, and to nothing else.
BAD_INPUT = (DataInvalid, DataLenRange, EncryptedDataInvalid, EncryptedDataLenRange)
#: SoftHSM says so to bad padding, with nothing wrong with the token; and modules that fail do.
DOUBTFUL = (FunctionFailed, GeneralError)
#: What modules answer to a wrapped key that does not unwrap.
BAD_WRAPPING = (WrappedKeyInvalid, WrappedKeyLenRange, *BAD_INPUT)

#: Where python-pkcs11's name is not PKCS#11's in other letters.
_NAMES: dict[type[PKCS11Error], str] = {
    AnotherUserAlreadyLoggedIn: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    FunctionCancelled: "CKR_FUNCTION_CANCELED",
    SlotIDInvalid: "CKR_SLOT_ID_INVALID",
    TokenNotRecognised: "CKR_TOKEN_NOT_RECOGNIZED",
}
#: Codes without a class, by what python-pkcs11 says instead; of the rest it tells the number.
_SAID = {
    "Buffer was too small. Should never see this.": "CKR_BUFFER_TOO_SMALL",
    "Initialisation error (already initialized). Should never see this.": (
        "CKR_CRYPTOKI_ALREADY_INITIALIZED"
    ),
    "Initialisation error (not initialized). Should never see this.": (
        "CKR_CRYPTOKI_NOT_INITIALIZED"
    ),
}
#: Numbers that python-pkcs11 does not know and PKCS#11 v3.1 does (its header file, pkcs11t.h).
_NUMBERS = {
    0x01: "CKR_CANCEL",
    0x0A: "CKR_CANT_LOCK",
    0x1B: "CKR_ACTION_PROHIBITED",
    0x51: "CKR_FUNCTION_NOT_PARALLEL",
    0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0x1A0: "CKR_MUTEX_BAD",
    0x1A1: "CKR_MUTEX_NOT_LOCKED",
    0x1B6: "CKR_FIPS_SELF_TEST_FAILED",
    0x1B7: "CKR_LIBRARY_LOAD_FAILED",
    0x201: "CKR_TOKEN_RESOURCE_EXCEEDED",
    0x202: "CKR_OPERATION_CANCEL_FAILED",
    0x203: "CKR_KEY_EXHAUSTED",
}
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HEX = re.compile(r"0x[0-9a-f]+\Z")


class TokenGone(PKCS11Error):
    """The module shows no token any more where ours was: said by us, not by the module."""


_NAMES[TokenGone] = "CKR_TOKEN_NOT_PRESENT"


def exactly(output: bytes, length: int) -> bytes:
    """Return what the module gave, which is always as long as that. Raises `FunctionFailed`: a
    module that is mistaken about a length is mistaken about more."""
    if len(output) != length:
        raise FunctionFailed(f"the module gave {len(output)} bytes, and it must be {length}")
    return output


def failure(error: PKCS11Error, remedy: Remedy) -> KeycustodyError:
    """Return the error that a caller may see. Raise it `from` the one given."""
    if isinstance(error, MechanismInvalid | MechanismParamInvalid):
        return UnsupportedByToken("The token refused the mechanism that this operation needs.")
    if remedy in (Remedy.GIVE_UP, Remedy.RETRY, Remedy.FIND):
        return TokenUnavailable("The token failed to do what was asked.")
    return TokenUnavailable("The token went away; it is opened again.")


def code(error: BaseException | None) -> str:
    """Return the name of what the module said, of an error or its cause, or its number in hex.
    Empty if the module said nothing."""
    said = error if isinstance(error, PKCS11Error) else getattr(error, "__cause__", None)
    if not isinstance(said, PKCS11Error):
        return ""
    if type(said) is PKCS11Error:
        number = _HEX.search(str(said))
        if number is None:
            return _SAID.get(str(said), "unnamed")
        return _NUMBERS.get(int(number[0], 16), number[0])
    return _NAMES.get(type(said)) or "CKR_" + _WORD.sub("_", type(said).__name__).upper()


def unless_answered(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A worker's `sys.excepthook`. python-pkcs11 ends operations in destructors, and Cython prints
    what the module says to that: a page for each error, though that was answered already."""
    if not issubclass(kind, PKCS11Error):
        sys.__excepthook__(kind, error, trace)
