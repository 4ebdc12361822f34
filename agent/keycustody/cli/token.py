"""`token`: provision a token. Works without a running agent."""

from pathlib import Path

import click

from keycustody.cli import options
from keycustody.cli.text import printable


@click.group()
def token() -> None:
    """Provision the token.

    \b
    Examples:
      keycustody token init --config hsm_config/softhsm.toml
      keycustody token change-pin --config hsm_config/softhsm.toml
      keycustody token clear-pin-guard --config hsm_config/softhsm.toml
    """


@token.command(short_help="Initialise the token and set its PINs.")
@options.config_option()
@click.option("--force", is_flag=True, help="Erase a token that is already initialised.")
@click.option("--label", metavar="LABEL", help="With --force: the label of the token to erase.")
def init(config: Path, force: bool, label: str | None) -> None:
    """Initialise the token that the settings name, and set its PINs.

    PIN files that are missing are made, with strong PINs, readable by their owner alone. A token
    that is already initialised is refused, unless --force and its --label say that all its keys may
    be lost.

    \b
    Examples:
      keycustody token init --config hsm_config/softhsm.toml
      keycustody token init --config hsm_config/softhsm.toml --force --label keycustody-dev
    """
    if force != (label is not None):
        raise click.UsageError("--force erases a token: it goes with --label, and only with it.")
    settings = options.load_trusted(config)
    from keycustody import daemon

    made = daemon.initialise_token(settings, force=force, label=label, prompt=options.pin_prompt())
    click.echo(
        f"Token {printable(made.label)!r} is initialised (serial {printable(made.serial)}, "
        f"{printable(made.manufacturer)} {printable(made.model)})."
    )


@token.command(name="change-pin", short_help="Give the token a new user PIN.")
@options.config_option()
def change_pin(config: Path) -> None:
    """Give the token's user a new PIN, and keep it in the file that token.pin names.

    The new PIN is made up, or it is what FILE.new holds already, FILE being the PIN file. FILE.new
    is on disk before the token is asked, and becomes FILE once the token has accepted it: whatever
    breaks off between, run the command again and it finds out which of the two PINs holds. Stop
    the agent first.

    \b
    Example:
      keycustody token change-pin --config hsm_config/softhsm.toml
    """
    settings = options.load_trusted(config)
    from keycustody import daemon

    file = daemon.change_pin(settings)
    click.echo(
        f"The token has a new PIN, which {printable(str(file))} holds. Other agents of this token "
        "need it too; copies made of a SoftHSM token before still have the old one."
    )


@token.command(name="clear-pin-guard", short_help="Allow a refused PIN to be tried again.")
@options.config_option()
def clear_pin_guard(config: Path) -> None:
    """Allow the PIN to be tried again after the token refused it.

    Correct the PIN first: after a few more wrong tries a token locks itself for good.

    \b
    Example:
      keycustody token clear-pin-guard --config hsm_config/softhsm.toml
    """
    settings = options.load_settings(config)
    from keycustody import daemon

    cleared = daemon.clear_pin_guard(settings)
    click.echo("The PIN may be tried once again." if cleared else "No PIN was being held back.")
