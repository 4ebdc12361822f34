"""What a record says before it has its time and its place in the chain."""

from collections.abc import Mapping, Sequence

from keycustody.formats.audit import AuditRecord


def draft(
    *,
    request: str,
    principal: str,
    via: str,
    operation: str,
    rules: str,
    key: str = "",
    version: int = 0,
    algorithm: str = "",
    context: Mapping[str, str] | None = None,
    items: Sequence[str] | None = None,
    grant: str = "",
    result: str = "OK",
    detail: str = "",
    count: int = 1,
    microseconds: int = 0,
) -> AuditRecord:
    """Return a record without time, sequence number and hash, which the journal gives it."""
    return AuditRecord(
        v=1,
        seq=0,
        time="",
        request=request,
        principal=principal,
        via=via,
        operation=operation,
        key=key,
        version=version,
        algorithm=algorithm,
        context=dict(context or {}),
        items=list(items or []),
        rules=rules,
        grant=grant,
        result=result,
        detail=detail,
        count=count,
        microseconds=microseconds,
        prev="",
    )
