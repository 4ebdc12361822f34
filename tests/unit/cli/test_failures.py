"""Failures: one line, and a status that scripts can rely on."""

import click
import pytest

from keycustody import errors
from keycustody.cli import failures
from keycustody.errors import KeycustodyError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.KeyNotFound("x"), 1),
        (errors.InvalidSignature("x"), 3),
        (errors.DecryptionFailed("x"), 3),
        (errors.TruncatedEnvelope("x"), 3),
        (errors.AuditChainBroken("x"), 3),
        (errors.AgentUnreachable("x"), 4),
        (errors.TokenUnavailable("x"), 4),
        (errors.BudgetExceeded("x"), 1),
        (errors.BudgetExceeded("x", retry_after=60.0), 4),
        (click.UsageError("x"), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (RuntimeError("x"), 1),
        (ModuleNotFoundError("x", name="keycustody.daemon"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_status(error: BaseException, status: int) -> None:
    assert failures.report(error, debug=False) == status


def test_the_line_has_code_and_request(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.PermissionDenied("No.", request_id="ab12"), debug=False)

    assert capsys.readouterr().err == "keycustody: No. [PERMISSION_DENIED] (request ab12)\n"


def test_each_finding_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.ConfigInvalid("a.toml: x: is missing.\na.toml: y: no."), debug=False)

    assert capsys.readouterr().err == (
        "keycustody: a.toml: x: is missing. [CONFIG_INVALID]\n"
        "keycustody: a.toml: y: no. [CONFIG_INVALID]\n"
    )


def test_an_agents_sentence_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.KeyNotFound("\x1b[2J\u202egone"), debug=False)

    assert capsys.readouterr().err == "keycustody: \\x1b[2J\\u202egone [KEY_NOT_FOUND]\n"


def test_a_broken_pipe_to_a_worker_is_not_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.TokenUnavailable("A worker died.")
    error.__cause__ = BrokenPipeError()

    assert failures.report(error, debug=False) == 4
    assert "[TOKEN_UNAVAILABLE]" in capsys.readouterr().err


def test_a_broken_output_pipe_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.FileUnusable("The output cannot be written.")
    error.__cause__ = BrokenPipeError()

    assert failures.report(error, debug=False) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_error_has_a_status(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    error: KeycustodyError = errors.BY_CODE[code]("Sentence.")

    assert failures.report(error, debug=False) in (1, 3, 4)
    assert capsys.readouterr().err == f"keycustody: Sentence. [{code}]\n"
