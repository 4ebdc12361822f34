"""What the module's errors mean to us, in tables by exception name.

The text of a PKCS#11 error never goes into a message: `cause` keeps its name for the agent's log.
"""

from pkcs11.exceptions import (
    DataInvalid,
    DataLenRange,
    DeviceError,
    DeviceRemoved,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
    KeyHandleInvalid,
    MechanismInvalid,
    MechanismParamInvalid,
    ObjectHandleInvalid,
    PKCS11Error,
    SessionClosed,
    SessionHandleInvalid,
    TokenNotPresent,
    UnwrappingKeyHandleInvalid,
    UserNotLoggedIn,
    WrappedKeyInvalid,
    WrappedKeyLenRange,
    WrappingKeyHandleInvalid,
)

from keycustody.errors import KeycustodyError, TokenUnavailable, UnsupportedByToken

#: A handle that was good is not any more: find the key and check it again.
STALE_HANDLE = (
    ObjectHandleInvalid,
    KeyHandleInvalid,
    WrappingKeyHandleInvalid,
    UnwrappingKeyHandleInvalid,
)
#: What modules answer to bad input of an asymmetric operation. GeneralError and FunctionFailed are
#: among it because SoftHSM says so to bad padding, with nothing wrong with the token.
BAD_INPUT = (
    DataInvalid,
    DataLenRange,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
)
#: What modules answer to a wrapped key that does not unwrap.
BAD_WRAPPING = (WrappedKeyInvalid, WrappedKeyLenRange, *BAD_INPUT)

_GONE = (
    DeviceError,
    DeviceRemoved,
    SessionClosed,
    SessionHandleInvalid,
    TokenNotPresent,
    UserNotLoggedIn,
)


def failure(error: PKCS11Error) -> KeycustodyError:
    """Return the error that a caller may see. Raise it `from` the one given."""
    if isinstance(error, _GONE):
        return TokenUnavailable("The token went away; it is opened again.")
    if isinstance(error, MechanismInvalid | MechanismParamInvalid):
        return UnsupportedByToken("The token refused the mechanism that this operation needs.")
    return TokenUnavailable("The token failed to do what was asked.")


def cause(error: BaseException) -> str:
    """Return the name of what the module said, for the agent's log; empty if it said nothing."""
    said = error if isinstance(error, PKCS11Error) else error.__cause__
    if not isinstance(said, PKCS11Error):
        return ""
    # python-pkcs11 has no class for some codes (CKR_ACTION_PROHIBITED), only a number ("0x1b").
    number = str(said) if type(said) is PKCS11Error else ""
    return f"{type(said).__name__} {number}".strip()[:64]
