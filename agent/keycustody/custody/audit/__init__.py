"""The audit journal: one durable, chained record for each request, before its answer.

`Journal` writes, `Heads` signs, `records` reads, `verify` checks. The bytes are docs/format.md, 8
and 10; what the journal proves, and what not, is docs/audit.md.
"""

from keycustody.custody.audit.denials import DENIALS, Denials
from keycustody.custody.audit.drafting import draft
from keycustody.custody.audit.heads import Heads, Standing, verifier_of
from keycustody.custody.audit.journal import Journal
from keycustody.custody.audit.reading import records
from keycustody.custody.audit.verifying import Report, verify
from keycustody.formats.audit import Head

__all__ = [
    "DENIALS",
    "Denials",
    "Head",
    "Heads",
    "Journal",
    "Report",
    "Standing",
    "draft",
    "records",
    "verifier_of",
    "verify",
]
