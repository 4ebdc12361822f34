"""What is measured, in order."""

from collections.abc import Mapping
from types import ModuleType

from benchmarks import budget, bulk, counts, growth, messages, operations

GROUPS: Mapping[str, ModuleType] = {
    "bulk": bulk,
    "messages": messages,
    "operations": operations,
    "budget": budget,
    "growth": growth,
    "counts": counts,
}
