"""What is measured, in order: large files last, whose deletion keeps the disk busy for a while."""

from collections.abc import Mapping
from types import ModuleType

from benchmarks import budget, bulk, counts, growth, messages, operations

GROUPS: Mapping[str, ModuleType] = {
    "messages": messages,
    "operations": operations,
    "budget": budget,
    "bulk": bulk,
    "growth": growth,
    "counts": counts,
}
