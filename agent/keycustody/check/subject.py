"""What is judged: one settings file that could be read, and the day."""

from dataclasses import dataclass
from datetime import datetime

from keycustody.config import Settings
from keycustody.config.findings import Finding


@dataclass(frozen=True, slots=True)
class Subject:
    """Settings, the name of their file, and the time that expiry is judged by."""

    file: str
    settings: Settings
    now: datetime
    warn_days: int

    def finding(self, path: str, rule: str, message: str) -> Finding:
        """Return a finding about a member of the file."""
        return Finding(self.file, path, rule, message)
