"""The rules of the model of computation, each a check that returns what it found.

`RULES` is the one table: what `check` runs, and what the documentation lists. A rule
runs only if the rules it stands on found nothing, so a check may rely on them; all
other rules still run, and every finding is returned.

R8 to R11 hold in every combination of the modes of the DPGs, and look at the modes one
by one only where the graph with all modes at once is refused (`dataflow.modes`). So the
cost grows with the size of the graph and not with the number of its modes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dataflow.cuts import legal_cuts
from dataflow.enclosure import properly_nested, single_entry
from dataflow.feedback import undelayed_choice
from dataflow.finding import Finding
from dataflow.graph import Graph
from dataflow.iteration import bounded, consistent, live, same_counts
from dataflow.regions import abortable
from dataflow.symmetry import control_reaches, zero_together
from dataflow.wellformed import control_tables, well_formed

__all__ = ["RULES", "Finding", "Rule", "check"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    id: str
    says: str
    """What a graph must satisfy, in one line."""
    check: Callable[[Graph], Iterable[Finding]]
    stands_on: tuple[str, ...] = ()
    """Rules that must have found nothing for `check` to make sense."""


def check(graph: Graph) -> list[Finding]:
    """Return everything that is wrong with `graph`, in the order of the rules."""
    found: dict[str, list[Finding]] = {}
    for rule in RULES:
        if not any(found.get(below) for below in rule.stands_on):
            found[rule.id] = list(rule.check(graph))
    return [finding for findings in found.values() for finding in findings]


RULES = (
    Rule("R1", "ports and FIFOs fit in name, direction, number and type", well_formed),
    Rule(
        "R2",
        "a control table gives every dynamic port a rate in every mode of one DPG, "
        "which has one controller",
        control_tables,
        ("R1",),
    ),
    Rule(
        "R3",
        "in every mode both rates of a FIFO are 0, or neither is",
        zero_together,
        ("R1", "R2"),
    ),
    Rule(
        "R4",
        "every actor with dynamic ports gets the control token, also when it is off",
        control_reaches,
        ("R1", "R2"),
    ),
    Rule(
        "R5",
        "one actor begins a DPG and one ends it; data goes in and out there only",
        single_entry,
        ("R1", "R2"),
    ),
    Rule(
        "R7",
        "the regions of two DPGs are disjoint, or one contains the other",
        properly_nested,
        ("R1", "R2", "R5"),
    ),
    Rule(
        "R8",
        "in every mode the balance equations have a solution",
        consistent,
        ("R1", "R2", "R3"),
    ),
    Rule(
        "R6",
        "a choice of mode does not wait for what it decides",
        undelayed_choice,
        ("R1", "R2", "R3", "R4", "R8"),
    ),
    Rule(
        "R9",
        "a mode lasts for an iteration, and only what it governs fires as it says",
        same_counts,
        ("R1", "R2", "R3", "R4", "R8"),
    ),
    Rule(
        "R10",
        "in every mode an iteration completes",
        live,
        ("R1", "R2", "R3", "R4", "R6", "R8"),
    ),
    Rule(
        "R11",
        "the declared capacities let every mode complete",
        bounded,
        ("R1", "R2", "R3", "R4", "R6", "R8", "R10"),
    ),
    Rule(
        "R12",
        "every actor is mapped, and a FIFO between devices is a TX/RX pair's",
        legal_cuts,
        ("R1",),
    ),
    Rule(
        "R14",
        "a branch of a region can be abandoned at any time without a trace",
        abortable,
        ("R1", "R2"),
    ),
)
