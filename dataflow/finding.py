"""What a rule found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a graph."""

    rule: str
    """Its id, such as ``R3``: stable, for scripts and for the documentation."""
    subject: str
    """What it concerns, such as ``fifo camera.frames -> detect.in``."""
    problem: str
    """What is wrong, with the values."""
    fix: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; {self.fix} ({self.rule})"
