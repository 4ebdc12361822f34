"""How a key is born, adopted, rotated, retired, revoked and destroyed.

A `Change` is what somebody asks for. `planning` turns it into steps, from what the token shows and
without touching it; the `Executor` does the steps one by one, each with a record of its intent
before and of its outcome after. Every step can be interrupted anywhere and is finished, or begun
anew, by the next run: a version counts only once its state record is written, which comes last, and
a version that is destroyed is recorded as destroyed first.
"""

from keycustody.custody.lifecycle.changes import (
    Adopt,
    Apply,
    Change,
    Destroy,
    Retire,
    Revoke,
    Rotate,
)
from keycustody.custody.lifecycle.executor import Executor, Report
from keycustody.custody.lifecycle.recording import Actor, command_line, recorded
from keycustody.custody.lifecycle.steps import Action, Step

__all__ = [
    "Action",
    "Actor",
    "Adopt",
    "Apply",
    "Change",
    "Destroy",
    "Executor",
    "Report",
    "Retire",
    "Revoke",
    "Rotate",
    "Step",
    "command_line",
    "recorded",
]
