"""What a chaos campaign does, and when: drawn from a seed, before anything runs.

Faults come one after another, most of them alone, so that each one's cost can be told;
about every fifth meets another that is not over yet. Kinds are dealt like cards: each
comes once before any comes again.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dataflow.errors import MisuseError, nearest
from dataflow.failures import links_of
from dataflow.plan import Plan

WARM_S = 4.0
"""Before the first fault: the gap of a fault is told from the 200 frames before it."""
REST_S = (2.2, 3.2)
"""From one fault's end to the next fault: a gap is looked for in 2 s."""
OVERLAP = 0.2
"""Share of the faults that come while the one before them lasts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        strikes: What it is done to.
        hold_s: Least and most time until it is mended.
        text: What is done, and how it is mended.
        amounts: How much of it, where there is a choice.
        unit: Of the amounts.
    """

    name: str
    strikes: Literal["server", "endpoint", "link"]
    hold_s: tuple[float, float]
    text: str
    amounts: tuple[float, ...] = ()
    unit: str = ""


_LAST_S = (2.5, 4.0)
"""Longer than the 2 s after which a suspect session is closed, and than a gap's 2 s."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind("kill", "server", _LAST_S, "SIGKILL; started again"),
        Kind("stop", "server", (0.3, 1.5), "SIGSTOP; SIGCONT in the same session"),
        Kind("zombie", "server", _LAST_S, "SIGSTOP; SIGCONT after its session closed"),
        Kind("hang", "server", (0.5, 3.5), "an actor holds the interpreter; lets go"),
        Kind("abort", "server", _LAST_S, "abort(3) in an actor; started again"),
        Kind(
            "slow", "server", _LAST_S, "each firing takes longer; no more",
            (0.005, 0.05, 0.4), "s",
        ),
        Kind("drain", "server", _LAST_S, "SIGTERM, it drains; started again"),
        Kind("replan", "server", _LAST_S, "restarted with another plan; with its own"),
        Kind("cut", "link", (0.0, 0.0), "RST; connections are made again at once"),
        Kind(
            "flap", "link", (2.5, 5.0), "RST, again and again; no more",
            (0.1, 0.3, 0.8), "s",
        ),
        Kind("down", "link", _LAST_S, "RST, then connections are refused; made"),
        Kind("silence", "link", _LAST_S, "nothing passes either way; passes"),
        Kind("silence-forth", "link", _LAST_S, "nothing reaches the server; it does"),
        Kind("silence-back", "link", _LAST_S, "nothing comes from the server; it does"),
        Kind(
            "throttle", "link", _LAST_S, "it carries little; all",
            (60e3, 250e3, 2e6), "bytes/s",
        ),
        Kind(
            "delay", "link", _LAST_S, "all takes longer, each way; no more",
            (0.01, 0.03, 0.15), "s",
        ),
        Kind("endpoint", "endpoint", _LAST_S, "SIGKILL; a new life of the stream"),
        Kind("freeze", "endpoint", (0.3, 3.5), "SIGSTOP; SIGCONT"),
        Kind(
            "disk-full", "endpoint", (1.0, 3.0),
            "its results cannot grow (RLIMIT_FSIZE); they can",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a campaign."""

    at_s: float
    """From the moment when all devices were ready."""
    kind: str
    target: str
    """A device; of a link, the one that listens."""
    dialler: str
    """Of a link, the device that dials; else empty."""
    hold_s: float
    """Until it is mended."""
    amount: float | None
    alone: bool
    """No other fault is set while it lasts, nor shortly before or after."""

    @property
    def end_s(self) -> float:
        return self.at_s + self.hold_s

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = f"{self.dialler}-{self.target}" if self.dialler else self.target
        unit = KINDS[self.kind].unit
        much = "" if self.amount is None else f" {self.amount:,g} {unit}"
        return f"{self.kind}{much} {place}, {self.hold_s:.1f} s"


def known_kinds(names: Sequence[str]) -> list[str]:
    """Return `names`, all of them if there are none.

    Raises:
        MisuseError: There is no such kind of fault.
    """
    for name in names:
        if name not in KINDS:
            raise MisuseError(
                f"fault '{name}': unknown{nearest(name, KINDS)}; known are "
                f"{', '.join(KINDS)}"
            )
    return list(dict.fromkeys(names)) or list(KINDS)


def describe_kinds() -> str:
    """Return a line for each kind of fault."""
    return "".join(f"{k.name:14} {k.strikes:9} {k.text}\n" for k in KINDS.values())


def schedule(
    plan: Plan, *, seed: int, seconds: float, kinds: Collection[str]
) -> list[Strike]:
    """Return the faults of a campaign: the same for the same arguments, always.

    Args:
        plan: Names the devices and, by its graph, the links.
        seed: Of all that is drawn.
        seconds: Every fault is mended by then.
        kinds: Names of `KINDS`; one that finds nothing to strike in `plan` is left out.

    Raises:
        MisuseError: No fault fits into this time.
    """
    draw = random.Random(seed)
    cards = _cards(draw, [k for k in KINDS if k in kinds and _targets(plan, k)])
    strikes: list[Strike] = []
    at_s = WARM_S
    for name in cards:
        together = bool(strikes) and draw.random() < OVERLAP
        before = strikes[-1] if strikes else None
        if together and before is not None and before.hold_s > 0.5:
            at_s = before.at_s + draw.uniform(0.2, before.hold_s)
        elif before is not None:
            at_s = max(s.end_s for s in strikes) + draw.uniform(*REST_S)
        kind = KINDS[name]
        hold_s = draw.uniform(*kind.hold_s)
        amount = draw.choice(kind.amounts) if kind.amounts else None
        free = [t for t in _targets(plan, name) if not _busy(t, at_s, strikes)]
        if at_s + hold_s > seconds:
            break
        if free:
            weights = [_weight(plan, each) for each in free]
            dialler, target = draw.choices(free, weights)[0]
            strikes.append(Strike(at_s, name, target, dialler, hold_s, amount, True))
    if not strikes:
        raise MisuseError(
            f"{seconds:g} s: too short for a fault of {', '.join(kinds)}, which come "
            f"after {WARM_S:g} s and last; give more with --minutes"
        )
    return [_alone(strike, strikes) for strike in strikes]


def _cards(draw: random.Random, kinds: list[str]) -> Iterator[str]:
    while kinds:
        yield from draw.sample(kinds, len(kinds))


def _targets(plan: Plan, kind: str) -> list[tuple[str, str]]:
    """Return (dialler, target) of what a kind can strike; the dialler of links only."""
    strikes = KINDS[kind].strikes
    if strikes == "link":
        return sorted(links_of(plan.graph))
    devices = sorted(plan.devices.values(), key=lambda device: device.name)
    return [("", device.name) for device in devices if device.role == strikes]


def _weight(plan: Plan, target: tuple[str, str]) -> int:
    """Return how often to strike `target`: most, what frames go to at first."""
    firsts = {
        (endpoint, region.branches[0].device)
        for region in plan.graph.regions
        for endpoint in (plan.graph.actors[region.source].device, "")
    }
    return 3 if target in firsts else 1


def _busy(target: tuple[str, str], at_s: float, strikes: list[Strike]) -> bool:
    """Tell whether what `target` names, or an end of it, is not mended yet."""
    for strike in strikes:
        theirs = strike.dialler, strike.target
        both_links = all((target[0], theirs[0]))
        meet = target == theirs if both_links else {*target} & {*theirs} - {""}
        if meet and at_s <= strike.end_s:
            return True
    return False


def _alone(strike: Strike, strikes: list[Strike]) -> Strike:
    others = [s for s in strikes if s is not strike]
    alone = not any(s.at_s <= strike.end_s and strike.at_s <= s.end_s for s in others)
    return replace(strike, alone=alone)
