"""Opening a token, and logging in as its user: what the module's answers mean there."""

from typing import Any

from pkcs11 import TokenFlag
from pkcs11.exceptions import (
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserAlreadyLoggedIn,
    UserPinNotInitialized,
)

from keycustody import errors
from keycustody.token.api import ChangePin, Done, Login
from keycustody.token.hsm.objects import MAPPER, find

_REFUSED = (PinIncorrect, PinInvalid, PinLenRange)
#: A wrong PIN was tried since a right one (PKCS#11 v3.1, 3.2: CK_TOKEN_INFO).
_WRONG_SINCE = (
    TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED
)


def logged_in(token: Any, request: Login) -> Any:
    """Open a session as the token's user.

    Raises `PinIncorrect`, also for a PIN that is locked or expired; `PinGuarded` if the last login
    with it broke off and the token shows a wrong PIN since; `TokenNotProvisioned` if the token has
    none; `TokenUnavailable`.
    """
    if request.again:
        _check_tries(token)
    try:
        pin = request.pin.value.decode("utf-8")
    except UnicodeDecodeError:
        # Without its cause, which holds the PIN.
        raise errors.PinIncorrect("The PIN is not UTF-8, which PKCS#11 requires.") from None
    try:
        return token.open(rw=True, user_pin=pin, attribute_mapper=MAPPER)
    except UserAlreadyLoggedIn:
        return _reopened(token)
    except _REFUSED as error:
        raise errors.PinIncorrect("The token refused the PIN.") from error
    except PinLocked as error:
        raise errors.PinIncorrect(
            "The token has locked its PIN after wrong ones; its security officer can unlock it."
        ) from error
    except PinExpired as error:
        raise errors.PinIncorrect("The PIN has expired; set a new one on the token.") from error
    except UserPinNotInitialized as error:
        raise errors.TokenNotProvisioned(
            "The token has no user PIN; run `keycustody token init`."
        ) from error
    except PKCS11Error as error:
        raise errors.TokenUnavailable("The token failed while logging in.") from error


def _check_tries(token: Any) -> None:
    try:
        # Anew: a token's flags are those of when it was found.
        flags = token.slot.get_token().flags
    except PKCS11Error as error:
        raise errors.TokenUnavailable("The token does not tell its state.") from error
    if flags & _WRONG_SINCE:
        raise errors.PinGuarded(
            "The last login with this PIN broke off, and the token shows that a wrong PIN was "
            "tried since it accepted one, so this PIN is not tried again, because tokens lock "
            "after a few wrong ones. Put the right PIN where the settings say, or, if this is the "
            "right one, run `keycustody token clear-pin-guard`."
        )


def _reopened(token: Any) -> Any:
    """The session died and the login did not: every session of a process shares it. Believed if
    something private is shown; another process finds out otherwise."""
    try:
        session = token.open(rw=True, attribute_mapper=MAPPER)
        if find(session, PRIVATE=True):
            return session
    except PKCS11Error as error:
        raise errors.TokenUnavailable("The token does not open a session.") from error
    left(session)
    raise errors.TokenUnavailable("The token says that it is logged in, and shows nothing private.")


def left(session: Any) -> None:
    """Close a session that may be dead already. That logs out, if it is not."""
    try:
        session.close()
    except PKCS11Error:
        return


def change_pin(session: Any, request: ChangePin) -> Done:
    """Set the PIN of the user who is logged in.

    Raises `PinIncorrect` if the old one is not the token's, `InvalidRequest` if the token does not
    take the new one, `TokenUnavailable`.
    """
    try:
        session.set_pin(request.old.value.decode(), request.new.value.decode())
    except PinIncorrect as error:
        raise errors.PinIncorrect("The token refused the PIN that is to be changed.") from error
    except (PinInvalid, PinLenRange) as error:
        raise errors.InvalidRequest(
            "The token does not take such a PIN: too short, too long, or of other characters."
        ) from error
    except PKCS11Error as error:
        raise errors.TokenUnavailable("The token failed while its PIN was changed.") from error
    return Done()
