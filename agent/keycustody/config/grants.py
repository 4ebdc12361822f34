"""Who is who, and who may do what: principals and grants."""

import fnmatch

from pydantic import AwareDatetime, Field, model_validator

from keycustody.config.fields import Identity, Name, Operation, Pattern, Section
from keycustody.errors import InvalidContext
from keycustody.formats import context as contexts


class PrincipalSettings(Section):
    """One caller: whoever the kernel lets through to its socket, or shows a certificate of its."""

    socket: bool = Field(True, description="Does it get a socket of its own in `agent.run_dir`?")
    group: str | None = Field(
        None,
        description="A group whose members may use the socket. Without it, only the agent's own "
        "user may.",
    )
    identities: tuple[Identity, ...] = Field(
        (),
        max_length=64,
        description="Whose certificates are this principal on `[tls]` listeners: SPIFFE IDs "
        "(`spiffe://...`), or typed names (`dns:`, `email:`, `ip:`, `uri:`), each exactly.",
    )


class RateSettings(Section):
    """How often: a bucket that holds `burst` operations and fills with `per_second` of them."""

    per_second: float = Field(gt=0, le=1_000_000, description="Operations; items of a batch count.")
    burst: int = Field(ge=1, le=1_000_000, description="At once. No batch can be larger.")


class BudgetSettings(Section):
    """How much: distinct session keys that one principal may unwrap in a sliding window."""

    session_keys: int = Field(ge=1, le=1_000_000, description="Distinct ones in the window.")
    seconds: int = Field(ge=1, le=31 * 86_400, description="The window's length.")


class GrantSettings(Section):
    """What some principals may do with some keys. What no grant allows is denied."""

    name: Name | None = Field(None, description="For the audit record; else its number.")
    principals: tuple[Name, ...] = Field(min_length=1, description="Who.")
    keys: tuple[Pattern, ...] = Field(
        min_length=1, description="Which keys: names, or patterns with `*`."
    )
    operations: tuple[Operation, ...] = Field(min_length=1, description="What.")
    context: dict[str, str] = Field(
        default_factory=dict,
        description="Pairs that a session key's context must hold, each exactly; `{principal}` in "
        "a value stands for who asks. The context may hold more.",
    )
    not_before: AwareDatetime | None = Field(None, description="Allows nothing before that time.")
    not_after: AwareDatetime | None = Field(None, description="Allows nothing after that time.")
    rate: RateSettings | None = Field(None, description="How often, for each principal.")
    budgets: tuple[BudgetSettings, ...] = Field(
        (), max_length=8, description="How many session keys, for each principal; all must hold."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "GrantSettings":
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before must be before not_after")
        if (self.rate or self.budgets) and self.name is None:
            raise ValueError("a grant with rate or budgets needs a name, under which it is counted")
        if self.context and not set(self.operations) <= {"generate", "unwrap", "rewrap"}:
            raise ValueError("context is for generate, unwrap and rewrap; grant others apart")
        try:
            contexts.encode(self.context)
        except InvalidContext as error:
            raise ValueError(error.message) from error
        if self.budgets and "unwrap" not in self.operations:
            raise ValueError("budgets are for unwrap, which this grant does not allow")
        if len({budget.seconds for budget in self.budgets}) != len(self.budgets):
            raise ValueError("budgets must each have a window of another length")
        return self

    def covers(self, key: str) -> bool:
        """Is this grant about that key?"""
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.keys)
