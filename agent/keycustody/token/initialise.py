"""Initialise a token through PKCS#11 itself, so that the same command provisions any kind.

`initialise` is the parent's side. The work is done by a child of its own (`python -m
keycustody.token.initialise FD LEDGER_FD`), because PyKCS11 and python-pkcs11 cannot share a module
in one process, and because a module that crashes must not take the command with it. Only this
module imports PyKCS11.

A token that is initialised already is erased only with `force`, and only by who knows its SO PIN:
that is what C_InitToken checks (PKCS#11 v3.1, 5.5.7).
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from keycustody.errors import (
    BY_CODE,
    InternalError,
    InvalidRequest,
    KeycustodyError,
    ModuleUnusable,
    PinIncorrect,
    TokenInitialised,
    TokenNotFound,
    TokenUnavailable,
)
from keycustody.token.api import AnyReply, Failed, Request, Secret, TokenInfo
from keycustody.token.child import harden, serve
from keycustody.token.frames import encode
from keycustody.token.pipe import start
from keycustody.token.pool import PoolSettings

#: CK_TOKEN_INFO.label is 32 bytes, padded with blanks.
_LABEL_BYTES = 32
#: Some hardware erases slowly.
_SECONDS = 120.0


class Initialise(Request[TokenInfo], frozen=True):
    """Initialise the token with that label, or the first one that has none yet."""

    module: str
    label: str
    serial: str | None
    so_pin: Secret
    user_pin: Secret
    force: bool


async def initialise(
    settings: PoolSettings, *, so_pin: bytes, user_pin: bytes, force: bool = False
) -> TokenInfo:
    """Initialise the token of these settings and set its user PIN.

    `so_pin` becomes the SO PIN of a new token and must be that of one that is erased. Raises
    `TokenInitialised` if there is one with that label and not `force`; `PinIncorrect` for a wrong
    SO PIN; `TokenNotFound` if no token is left to initialise; `InvalidRequest` for a label or PIN
    that the token cannot have; `ModuleUnusable`; `TokenUnavailable`.
    """
    if settings.label is None:
        raise InvalidRequest("A token is initialised under a label; name it in token.label.")
    request = Initialise(
        settings.module, settings.label, settings.serial, Secret(so_pin), Secret(user_pin), force
    )
    answer: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()

    def received(reply: AnyReply) -> None:
        if not answer.done():
            answer.set_result(reply)

    def lost() -> None:
        received(Failed(TokenUnavailable.code, "The module ended the process that used it."))

    try:
        child = await start(__name__, settings.environment, received, lost)
    except OSError as error:
        raise TokenUnavailable("The process that initialises tokens does not start.") from error
    try:
        child.send(encode(request))
        async with asyncio.timeout(_SECONDS):
            reply = await answer
    except TimeoutError as error:
        raise TokenUnavailable("The token did not answer while it was initialised.") from error
    finally:
        await child.end()
    if isinstance(reply, Failed):
        raise BY_CODE.get(reply.code, InternalError)(reply.message)
    if not isinstance(reply, TokenInfo):
        raise InternalError("The process that initialises tokens gave no answer.")
    return reply


# -- the child -------------------------------------------------------------------------------------


def perform(request: Initialise) -> TokenInfo:
    """Initialise a token in this process."""
    try:
        import PyKCS11
    except ImportError as error:
        raise ModuleUnusable(
            "Initialising tokens needs PyKCS11, which is not installed; use the token's own tool."
        ) from error
    if not Path(request.module).is_file():
        raise ModuleUnusable(f"There is no PKCS#11 module at {request.module}.")
    library = PyKCS11.PyKCS11Lib()
    try:
        library.load(request.module)
    except PyKCS11.PyKCS11Error as error:
        raise ModuleUnusable(
            f"{request.module} is not a PKCS#11 module for this machine, or does not start: its "
            "own configuration (see token.environment) is missing or wrong."
        ) from error
    try:
        slot = _chosen(library, PyKCS11.CKF_TOKEN_INITIALIZED, request)
        _check_pins(library.getTokenInfo(slot), request)
        _initialise(library, slot, request)
        return _info(library.getTokenInfo(slot))
    except PyKCS11.PyKCS11Error as error:
        raise _failure(cause(error)) from error


def cause(error: BaseException) -> str:
    """Return the CKR name in a PyKCS11 error, or in what one caused; empty if there is none."""
    import PyKCS11

    said = error if isinstance(error, PyKCS11.PyKCS11Error) else error.__cause__
    if not isinstance(said, PyKCS11.PyKCS11Error):
        return ""
    return str(PyKCS11.CKR.get(said.value, said.value))


def _chosen(library: Any, initialised: int, request: Initialise) -> Any:
    """Return the slot of the token to initialise."""
    free = []
    ours = []
    for slot in library.getSlotList(tokenPresent=True):
        info = library.getTokenInfo(slot)
        found = _info(info)
        if not info.flags & initialised:
            free.append(slot)
        elif found.label == request.label and request.serial in (None, found.serial):
            ours.append(slot)
    if ours and not request.force:
        raise TokenInitialised(
            f"A token labelled {request.label!r} is initialised already; initialising it again "
            "would destroy its keys."
        )
    if len(ours) > 1:
        raise TokenNotFound(f"{len(ours)} tokens are labelled {request.label!r}; name its serial.")
    if not ours and not free:
        raise TokenNotFound("There is no token that is not initialised yet.")
    return (ours or free)[0]


def _check_pins(info: Any, request: Initialise) -> None:
    """Refuse before anything is erased what the token would refuse after."""
    if not 1 <= len(request.label.encode()) <= _LABEL_BYTES:
        raise InvalidRequest(f"A token's label is 1 to {_LABEL_BYTES} bytes.")
    shortest, longest = info.ulMinPinLen, info.ulMaxPinLen
    for name, pin in (("SO PIN", request.so_pin), ("user PIN", request.user_pin)):
        if not shortest <= len(pin.value) <= longest:
            raise InvalidRequest(f"The {name} must be {shortest} to {longest} bytes long.")


def _initialise(library: Any, slot: Any, request: Initialise) -> None:
    import PyKCS11

    label = request.label.encode()
    # PyKCS11 pads with zero bytes, PKCS#11 with blanks.
    padded = (label + b" " * (_LABEL_BYTES - len(label))).decode()
    library.initToken(slot, request.so_pin.value, padded)
    session = library.openSession(slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION)
    try:
        session.login(request.so_pin.value, PyKCS11.CKU_SO)
        session.initPin(request.user_pin.value)
        session.logout()
    finally:
        session.closeSession()


def _info(info: Any) -> TokenInfo:
    label, serial, manufacturer, model = (
        str(text).rstrip("\0 ")
        for text in (info.label, info.serialNumber, info.manufacturerID, info.model)
    )
    return TokenInfo(label, serial, manufacturer, model)


def _failure(said: str) -> KeycustodyError:
    match said:
        case "CKR_PIN_INCORRECT" | "CKR_PIN_INVALID" | "CKR_PIN_LEN_RANGE":
            return PinIncorrect("The token refused the SO PIN; it keeps the one it was given.")
        case "CKR_PIN_LOCKED":
            return PinIncorrect("The token has locked its SO PIN.")
        case "CKR_SESSION_EXISTS":
            return TokenUnavailable("Another program uses the token; end it first.")
        case _:
            return TokenUnavailable("The token failed while it was initialised.")


def main() -> None:
    """Serve the pipe whose descriptors are the arguments; see `keycustody.token.child.serve`."""
    harden()
    serve(int(sys.argv[1]), int(sys.argv[2]), Initialise, perform, cause)


if __name__ == "__main__":
    main()
