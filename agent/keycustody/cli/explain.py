"""`explain`: which grant allows a request, or why none does. From settings, without an agent."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from keycustody.cli import failures, options
from keycustody.cli.text import facts, table

if TYPE_CHECKING:
    from keycustody.config import Settings
    from keycustody.custody.access.counters import Counters
    from keycustody.custody.access.grants import Ask, Grant
    from keycustody.custody.access.rules import Rules

#: The session key that is asked for: one that was not unwrapped yet, as it counts against budgets.
_ONE_MORE = b""


@click.command(short_help="Say which grant allows a request, or why none does.")
@options.config_option()
@click.option("--principal", required=True, metavar="NAME", help="Who asks.")
@click.option(
    "--operation",
    required=True,
    metavar="NAME",
    help="read, sign, agree, decrypt, generate, unwrap or rewrap.",
)
@click.option("--key", required=True, metavar="NAME", help="With which key.")
@click.option("--context", multiple=True, metavar="K=V", help="A context pair; may be repeated.")
@click.option(
    "--at",
    metavar="TIME",
    help="When, as in 2026-12-31T08:00:00Z; else now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    config: Path,
    principal: str,
    operation: str,
    key: str,
    context: tuple[str, ...],
    at: str | None,
    as_json: bool,
) -> None:
    """Say which grant allows a request, or of each grant why it does not.

    Works from the settings alone. If the audit journal can be read, it also shows how much of rates
    and budgets is used. What a grant allows is refused all the same if the key is not declared, is
    for another purpose, or breaks the cryptographic policy. Exit status: 0 allowed; 1 not.

    \b
    Examples:
      keycustody explain --config hsm_config/softhsm.toml \\
        --principal demo --operation unwrap --key invoices --context tenant=42
    """
    settings = options.load_settings(config)
    from keycustody.config.fields import Operation
    from keycustody.custody.access.grants import Ask
    from keycustody.custody.access.rules import rules_of
    from keycustody.formats import context as contexts

    if operation not in get_args(Operation):
        names = ", ".join(get_args(Operation))
        raise click.UsageError(f"--operation: {operation!r} is none; name one of {names}.")
    rules, now, pairs = rules_of(settings), _moment(at), options.context_of(context)
    contexts.encode(pairs)
    ask = Ask(principal, operation, key, pairs, session_keys=(_ONE_MORE,))
    counters, known = _counters(settings, rules, now)
    answer = _answer(rules, counters, ask, now, known=known)
    answer["principal_declared"] = principal in settings.principals
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _describe(answer)
    if answer["grant"] is None or answer["refused"]:
        raise SystemExit(failures.FAILED)


def _moment(text: str | None) -> float:
    if text is None:
        return datetime.now(UTC).timestamp()
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise click.UsageError("--at: say which time zone, as in 2026-12-31T08:00:00Z.")
        return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:  # no time, or one before the year 1 in UTC
        raise click.UsageError(
            f"--at: {text!r} is no time such as 2026-12-31T08:00:00Z."
        ) from error


def _counters(settings: "Settings", rules: "Rules", now: float) -> tuple["Counters", bool]:
    """Return what was used, and whether that is known."""
    from keycustody.custody.access.counters import Counters
    from keycustody.custody.rebuilding import rebuilt
    from keycustody.errors import KeycustodyError

    try:
        return rebuilt(rules, settings.agent.state_dir, now), True
    except (KeycustodyError, OSError):
        return Counters(rules.grants), False


def _answer(
    rules: "Rules", counters: "Counters", ask: "Ask", now: float, *, known: bool
) -> dict[str, Any]:
    from keycustody.custody.clock import stamp

    decision = rules.decide(ask, counters, now)
    used = {(use.grant, use.principal, use.window): use.used for use in counters.usage(now)}
    grants = []
    for grant in rules.grants:
        refusal = grant.refusal(ask, counters, now)
        grants.append(
            {
                "name": grant.name,
                "allows": refusal is None,
                "condition": refusal.condition if refusal else None,
                "reason": refusal.reason if refusal else None,
                "limits": list(_limits(grant, ask, used, known=known)),
            }
        )
    verdict, moment = rules.verdicts.get(ask.key), datetime.fromtimestamp(now, UTC)
    return {
        "principal": ask.principal,
        "operation": ask.operation,
        "key": ask.key,
        "context": dict(ask.context),
        "at": stamp(now),
        "grant": decision.grant.name if decision.grant else None,
        "grants": grants,
        "refused": _refused(rules, ask, moment),
        "declared": ask.key in rules.keys,
        "policy": list(verdict.describe(moment)) if verdict else [],
    }


def _refused(rules: "Rules", ask: "Ask", now: datetime) -> str | None:
    """Return why the settings refuse it whatever a grant says, or None."""
    from keycustody.config.fields import PURPOSE_OF
    from keycustody.errors import PolicyViolation

    declared = rules.keys.get(ask.key)
    if declared is None:
        return "the key is not declared."
    needed = PURPOSE_OF.get(ask.operation, declared.purpose)
    if declared.purpose is not needed:
        return f"the key is for {declared.purpose.value}, not {needed.value}."
    try:
        rules.verdicts[ask.key].check_request(ask.operation, "", now)
    except PolicyViolation as error:
        return error.message
    return None


def _limits(
    grant: "Grant", ask: "Ask", used: dict[tuple[str, str, int], int], *, known: bool
) -> Iterator[dict[str, Any]]:
    def use(window: int) -> int | None:
        return used.get((grant.name, ask.principal, window)) if known else None

    if grant.rate:
        rate = grant.rate
        yield {"per_second": rate.per_second, "burst": rate.burst, "used": use(0)}
    if ask.operation == "unwrap":
        for budget in grant.budgets:
            yield {
                "session_keys": budget.session_keys,
                "seconds": budget.seconds,
                "used": use(budget.seconds),
            }


def _describe(answer: dict[str, Any]) -> None:
    facts(
        [
            ("outcome", _outcome(answer)),
            ("at", answer["at"]),
            *(
                ()
                if answer["principal_declared"]
                else (("principal", "is not declared: nobody is"),)
            ),
            *(() if answer["declared"] else (("key", "is not declared: nothing can be done"),)),
            *(("policy", line) for line in answer["policy"]),
            (
                "may still refuse",
                "the key's state on the token, its self-test, limits",
            ),
        ]
    )
    click.echo()
    table(
        ("GRANT", "VERDICT", "LIMITS"),
        [
            (
                one["name"],
                "allows it" if one["allows"] else one["reason"],
                "; ".join(_limit(limit) for limit in one["limits"]),
            )
            for one in answer["grants"]
        ],
    )


def _outcome(answer: dict[str, Any]) -> str:
    grant, refused = answer["grant"], answer["refused"]
    if grant is None:
        spent = [one["name"] for one in answer["grants"] if one["condition"] in ("rate", "budget")]
        return (
            f"denied for now: grant {spent[0]} would allow it, and its limit is used up"
            if spent
            else "denied: no grant allows it"
        )
    if refused:
        return f"refused, though grant {grant} allows it: {refused}"
    return f"allowed by grant {grant}"


def _limit(limit: dict[str, Any]) -> str:
    used = "" if limit["used"] is None else f" ({limit['used']} used)"
    if "burst" in limit:
        return f"{limit['per_second']:g} a second, {limit['burst']} at once{used}"
    return f"{limit['session_keys']} session keys in {limit['seconds']} s{used}"
