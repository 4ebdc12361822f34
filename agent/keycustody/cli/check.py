"""`check`: judge settings files and their policies, without a token or a running agent."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keycustody.cli.text import printable

if TYPE_CHECKING:
    from keycustody.config.findings import Finding

#: Of the JSON output; another number means that a member changed its meaning.
_SCHEMA = 1


@click.command(short_help="Judge settings files and cryptographic policies.")
@click.argument(
    "configs", metavar="CONFIG...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option(
    "--warn-days",
    type=click.IntRange(min=0, max=3650),
    default=30,
    show_default=True,
    metavar="N",
    help="Warn of exceptions and certificates that end within N days, of a certificate not before "
    "a third of its lifetime is left.",
)
@click.pass_context
def check(
    context: click.Context, configs: tuple[Path, ...], as_json: bool, strict: bool, warn_days: int
) -> None:
    """Judge settings files and the cryptographic policies that they name, for a pipeline.

    Needs no token and no agent. Prints one finding a line, with the file, the setting, and the id
    of the rule (docs/policy.md). The exit status is 1 if one of them is an error, else 0. Policy
    files may be named too, so that a pattern for a whole folder works.

    \b
    Examples:
      keycustody check hsm_config/softhsm.toml
      keycustody check hsm_config/*.toml --strict
      keycustody check hsm_config/*.toml --json | jq '.findings[].rule'
    """
    from keycustody.check import check as judge

    findings = judge(configs, datetime.now(UTC), warn_days)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    if as_json:
        click.echo(json.dumps(_document(configs, findings, errors, warnings), indent=2))
    else:
        for finding in findings:
            click.echo(printable(str(finding)))
        counted = ((len(configs), "file"), (errors, "error"), (warnings, "warning"))
        click.echo("{}: {}, {}.".format(*(_count(number, what) for number, what in counted)))
    if errors or (strict and warnings):
        context.exit(1)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _document(
    configs: Sequence[Path], findings: Sequence["Finding"], errors: int, warnings: int
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "files": [str(path) for path in configs],
        "errors": errors,
        "warnings": warnings,
        "findings": [
            {
                "file": finding.file,
                "path": finding.path,
                "rule": finding.rule,
                "severity": finding.severity.value,
                "message": finding.message,
            }
            for finding in findings
        ],
    }
