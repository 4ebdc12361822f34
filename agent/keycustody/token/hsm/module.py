"""Load a PKCS#11 module and find the token by label or serial."""

import time
from pathlib import Path

import pkcs11
from pkcs11._pkcs11 import lib as Module  # noqa: N812 (it is a class)
from pkcs11.constants import TokenFlag
from pkcs11.exceptions import PKCS11Error, TokenNotPresent, TokenNotRecognised

from keycustody.errors import ModuleUnusable, TokenNotFound, TokenUnavailable
from keycustody.token.api import Open, TokenInfo

#: Several processes opening a SoftHSM token at once can miss it; the module looks at its tokens
#: only while it initialises, so each further try initialises it again. In seconds.
_PAUSES = (0.02, 0.06, 0.15)


def load(path: str) -> Module:
    """Load and initialise the module. Raises `ModuleUnusable`."""
    if not Path(path).is_file():
        raise ModuleUnusable(f"There is no PKCS#11 module at {path}; correct token.module.")
    try:
        return pkcs11.lib(path)
    except PKCS11Error as error:
        if " while loading " in str(error):
            raise ModuleUnusable(
                f"{path} is not a PKCS#11 module for this machine: it does not load, or has no "
                "C_GetFunctionList."
            ) from error
        raise ModuleUnusable(
            f"The PKCS#11 module {path} does not start: its own configuration (see "
            "token.environment) is missing or wrong."
        ) from error


def find_token(module: Module, wanted: Open) -> pkcs11.Token:
    """Return the one initialised token with that label and serial.

    Raises `TokenNotFound`, naming what was seen, and `TokenUnavailable` if the module fails.
    """
    for pause in (*_PAUSES, None):
        try:
            seen = _tokens(module)
            fitting = [token for token in seen if _fits(token, wanted)]
            if len(fitting) == 1:
                return fitting[0]
            if pause is None:
                raise TokenNotFound(_not_found(wanted, seen, len(fitting)))
        except PKCS11Error as error:
            if pause is None:
                raise TokenUnavailable("The PKCS#11 module does not tell its tokens.") from error
        time.sleep(pause)
        _again(module)
    raise AssertionError("unreachable")


def info(token: pkcs11.Token) -> TokenInfo:
    """Return who the token is."""
    return TokenInfo(token.label, _serial(token), token.manufacturer_id, token.model)


def _tokens(module: Module) -> list[pkcs11.Token]:
    tokens = []
    for slot in module.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (TokenNotPresent, TokenNotRecognised):
            continue
        if token.flags & TokenFlag.TOKEN_INITIALIZED:
            tokens.append(token)
    return tokens


def _again(module: Module) -> None:
    try:
        module.reinitialize()
    except PKCS11Error as error:
        raise TokenUnavailable("The PKCS#11 module does not start again.") from error


def _serial(token: pkcs11.Token) -> str:
    return token.serial.decode("utf-8", errors="backslashreplace").rstrip("\0 ")


def _fits(token: pkcs11.Token, wanted: Open) -> bool:
    return wanted.label in (None, token.label) and wanted.serial in (None, _serial(token))


def _not_found(wanted: Open, seen: list[pkcs11.Token], count: int) -> str:
    named = " and ".join(
        f"{what} {value!r}"
        for what, value in (("label", wanted.label), ("serial", wanted.serial))
        if value is not None
    )
    if count > 1:
        return f"{count} tokens have {named}; name the one by token.serial."
    there = ", ".join(f"{token.label!r} (serial {_serial(token)!r})" for token in seen)
    there = there or "no initialised token; run `keycustody token init`"
    return f"No token has {named}; the module shows {there}."
