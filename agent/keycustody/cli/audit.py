"""`audit`: check the journal. Works without a running agent."""

from pathlib import Path

import click

from keycustody.cli import options


@click.group()
def audit() -> None:
    """Look at the audit journal.

    \b
    Example:
      keycustody audit verify --config hsm_config/softhsm.toml
    """


@audit.command()
@options.config_option(required=False)
@click.option("--file", "path", type=click.Path(path_type=Path), metavar="FILE", help="A copy.")
def verify(config: Path | None, path: Path | None) -> None:
    """Verify the hash chain of the audit journal from its first record on.

    The head that is printed proves the journal up to there only to somebody who keeps it elsewhere:
    a chain by itself does not show that its end was cut off.

    \b
    Examples:
      keycustody audit verify --config hsm_config/softhsm.toml
      keycustody audit verify --file copy-of-audit.jsonl
    """
    # An explicit file wins over settings that only the environment named.
    if path is None:
        if config is None:
            raise click.UsageError("Say which journal: --config, or --file.")
        path = options.load_settings(config).agent.state_dir
    from keycustody.custody import audit as journal

    report = journal.verify(path)
    click.echo(f"The chain of {report.records} records is intact; its head is {report.head}.")
    if report.unfinished:
        click.echo(
            f"{report.unfinished} bytes follow: a record that is being written now, or that a "
            "crash cut short and nobody was answered for."
        )
