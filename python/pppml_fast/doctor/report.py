"""What the doctor found, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Check", "Report", "Status", "failed", "held", "note"]

# `ok`: it must hold and does. `failed`: it must hold and does not. `note`: a fact, good or bad, that nothing hangs on.
Status = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Check:
    """One finding: where it belongs, what was looked at, what was found, and what to do about it if anything."""

    section: str
    name: str
    status: Status
    value: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, section by section."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """What must hold and does not."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether everything holds that must."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """One line: how many of the things that must hold do."""
        required = sum(check.status != "note" for check in self.checks)
        if self.ok:
            return f"all {required} checks hold"
        return f"{len(self.failures)} of {required} checks failed: " + ", ".join(
            f"{check.section}: {check.name}" for check in self.failures
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {"ok": self.ok, "verdict": self.verdict, "checks": [asdict(check) for check in self.checks]}

    def lines(self) -> list[str]:
        """The report as lines of plain text, the verdict last."""
        lines, section = [], ""
        for check in self.checks:
            if check.section != section:
                section = check.section
                lines.append(section)
            mark = {"ok": "ok  ", "note": "    ", "failed": "FAIL"}[check.status]
            lines.append(f"  {mark} {check.name}: {check.value}" + (f" ({check.remedy})" if check.remedy else ""))
        return [*lines, self.verdict]


def note(section: str, name: str, value: str, remedy: str = "") -> Check:
    """A fact that nothing hangs on."""
    return Check(section, name, "note", value, remedy)


def held(section: str, name: str, value: str) -> Check:
    """Something that must hold and does."""
    return Check(section, name, "ok", value)


def failed(section: str, name: str, value: str, remedy: str) -> Check:
    """Something that must hold and does not, with what to do about it."""
    return Check(section, name, "failed", value, remedy)
