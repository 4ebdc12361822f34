"""The table of remedies, and the names by which python-pkcs11's errors are looked up in it."""

import pkcs11.exceptions
import pytest
from pkcs11.exceptions import PKCS11Error

from keycustody.token.hsm.failures import code
from keycustody.token.remedies import REMEDIES, Remedy, remedy

#: Codes that no exception of python-pkcs11 stands for: it only says a text or a number.
_UNNAMED = {
    "CKR_BUFFER_TOO_SMALL",
    "CKR_CANCEL",
    "CKR_CANT_LOCK",
    "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    "CKR_CRYPTOKI_NOT_INITIALIZED",
    "CKR_FIPS_SELF_TEST_FAILED",
    "CKR_FUNCTION_NOT_PARALLEL",
    "CKR_LIBRARY_LOAD_FAILED",
    "CKR_MUTEX_BAD",
    "CKR_MUTEX_NOT_LOCKED",
    "CKR_OPERATION_CANCEL_FAILED",
    "CKR_TOKEN_RESOURCE_EXCEEDED",
}


def test_each_code_of_the_table_can_come() -> None:
    classes = {
        code(found())
        for found in vars(pkcs11.exceptions).values()
        if isinstance(found, type) and issubclass(found, PKCS11Error)
    }
    assert set(REMEDIES) - _UNNAMED <= classes


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Unmapped error code 0x1b", "CKR_ACTION_PROHIBITED"),
        ("Unmapped error code 0x201", "CKR_TOKEN_RESOURCE_EXCEEDED"),
        ("Unmapped error code 0x80000012", "0x80000012"),
        (
            "Initialisation error (not initialized). Should never see this.",
            "CKR_CRYPTOKI_NOT_INITIALIZED",
        ),
        ("Something new.", "unnamed"),
    ],
)
def test_what_has_no_class_is_named_by_its_number(said: str, name: str) -> None:
    assert code(PKCS11Error(said)) == name


@pytest.mark.parametrize(
    ("said", "does"),
    [
        ("CKR_DEVICE_ERROR", Remedy.RENEW),
        ("CKR_GENERAL_ERROR", Remedy.RETRY),
        ("CKR_DATA_LEN_RANGE", Remedy.GIVE_UP),
        ("0x80000012", Remedy.RETRY),
        ("0x250", Remedy.GIVE_UP),
        ("unnamed", Remedy.GIVE_UP),
    ],
)
def test_what_is_in_no_table_is_an_answer_unless_it_is_a_vendors(said: str, does: Remedy) -> None:
    assert remedy(said, {}) is does


def test_a_profile_has_the_last_word() -> None:
    assert remedy("CKR_DEVICE_ERROR", {"CKR_DEVICE_ERROR": Remedy.GIVE_UP}) is Remedy.GIVE_UP
    assert remedy("0x80000012", {"0x80000012": Remedy.LOGIN}) is Remedy.LOGIN
