"""The result of an exploration: what every partition costs, and which one is best.

`Exploration.to_json` holds all of it: tables, pages and plots are made of that alone.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from understudy.candidates import Kind
from understudy.constraints import Constraints
from understudy.costs import Cost, Exit, Link, Partition, Power
from understudy.profile_file import Profile

EXPLORATION_VERSION = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """What a partition really took, in processes of this program or on a run's devices.

    Attributes:
        frames: That were answered, one at a time, behind the latencies.
        fps: With as many under way as the window holds; None: not tried.
        endpoint_ms: Of the network on the first device, a frame; None: not known.
        server_ms: The same on the others.
    """

    frames: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    fps: float | None = None
    endpoint_ms: float | None = None
    server_ms: float | None = None

    @classmethod
    def of(cls, latencies_ms: Iterable[float], **more: float | None) -> "Measured":
        """Return what frames took, of which there is at least one, and `more`."""
        known = sorted(latencies_ms)
        count = len(known)
        return cls(count, known[0], known[count // 2], known[int(count * 0.9)], **more)


@dataclass(frozen=True, slots=True)
class Row:
    """A partition of the model.

    Attributes:
        number: Of the place of its first crossing, in the order of the model; from 0.
        crossings: Of each link: label of the place and codec.
        kinds: Of those places.
        source: Where its times come from: measured, interpolated, profile, modelled.
        score: What was to be small.
        excluded: Why the constraints forbid it; empty: they do not.
        pareto: No other that is allowed is better in latency, bytes and endpoint time.
        tie: As good as the best, as far as anybody can tell.
        best: The one that is recommended.
        pieces: What its cost was computed from.
        measured: What it really took, if it was tried.
        added: What its cut costs in itself, as a share of the whole model's time; the
            times of the parts hold it.
    """

    number: int
    label: str
    kind: Kind | str
    tensors: tuple[str, ...]
    depth: float
    crossings: tuple[tuple[str, str], ...]
    raw_input: bool
    source: str
    notes: tuple[str, ...]
    cost: Cost
    score: float
    pieces: Partition
    excluded: tuple[str, ...] = ()
    pareto: bool = False
    tie: bool = False
    best: bool = False
    measured: Measured | None = None
    added: float = 0.0
    kinds: tuple[Kind, ...] = ()

    @property
    def codec(self) -> str:
        """Of the first crossing."""
        return self.crossings[0][1] if self.crossings else ""

    @property
    def slowest(self) -> str:
        """What bounds the throughput: of two devices' link, network or return."""
        stage = self.cost.bottleneck
        if stage.kind == "device" or self.kind == "chain":
            return stage.name.replace(" to ", "→")
        first = self.pieces.parts[0].device
        return "network" if stage.name.startswith(f"{first} to ") else "return"

    def to_json(self) -> dict[str, Any]:
        cost = asdict(self.cost)
        stages = cost.pop("stages")
        fps = self.cost.fps
        return {
            "number": self.number,
            "label": self.label,
            "kind": self.kind,
            "tensors": list(self.tensors),
            "depth": self.depth,
            "codec": self.codec,
            "crossings": [
                {
                    "label": label,
                    "codec": codec,
                    "bytes": crossing.bytes,
                    "wire_bytes": crossing.wire_bytes,
                    "answer_bytes": crossing.answer_bytes,
                }
                for (label, codec), crossing in zip(
                    self.crossings, self.pieces.crossings, strict=True
                )
            ],
            **cost,
            "fps": None if math.isinf(fps) else fps,
            "bottleneck": self.cost.bottleneck.name,
            "stages": stages,
            "raw_input": self.raw_input,
            "source": self.source,
            "notes": list(self.notes),
            "added": self.added,
            "score": self.score,
            "excluded": list(self.excluded),
            "pareto": self.pareto,
            "tie": self.tie,
            "best": self.best,
            "measured": None if self.measured is None else asdict(self.measured),
        }


@dataclass(frozen=True, slots=True)
class Threshold:
    """Between two rates of the links one row is the quickest.

    Attributes:
        from_mbit_s: From this rate, both ways and on all links; 0 is none at all.
        to_mbit_s: Up to this; None: any.
        number: Of the row.
    """

    from_mbit_s: float
    to_mbit_s: float | None
    number: int
    label: str
    codec: str


@dataclass(frozen=True, slots=True)
class Panel:
    """An exploration over one set of links.

    Attributes:
        rows: In the order of the model.
        why: In a sentence, what is recommended and why.
        thresholds: Which row is the quickest at which rate.
    """

    links: tuple[Link, ...]
    rows: tuple[Row, ...]
    why: str
    thresholds: tuple[Threshold, ...]

    @property
    def name(self) -> str:
        return ", ".join(link.name for link in self.links)

    @property
    def best(self) -> Row | None:
        """The recommended row; None: the constraints exclude all."""
        return next((row for row in self.rows if row.best), None)

    @property
    def ties(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.tie)

    def ranked(self) -> list[Row]:
        """Return the rows, the best first, those excluded last."""
        return sorted(
            self.rows, key=lambda row: (bool(row.excluded), not row.best, row.score)
        )

    def to_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "name": self.name,
            "links": [asdict(link) for link in self.links],
            "best": None if best is None else best.number,
            "ties": [row.number for row in self.ties],
            "why": self.why,
            "thresholds": [asdict(threshold) for threshold in self.thresholds],
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class ExploredDevice:
    """A device of the chain.

    Attributes:
        file: Of its profile.
        factor: How much slower than the profile it is taken to be.
        scaled: Why, in words; empty: its times are the profile's.
    """

    name: str
    file: str
    profile: Profile
    factor: float
    scaled: str

    def to_json(self) -> dict[str, Any]:
        profile = self.profile
        return {
            "name": self.name,
            "file": self.file,
            "device": profile.device,
            "factor": self.factor,
            "scaled": self.scaled,
            "machine": dict(profile.machine),
            "session": asdict(profile.session),
            "noise": asdict(profile.noise),
            "rounds": profile.rounds,
            "whole": asdict(profile.whole),
            "memory": asdict(profile.memory),
        }


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was explored, how, and what came out: a panel for each set of links."""

    model: str
    devices: tuple[ExploredDevice, ...]
    panels: tuple[Panel, ...]
    weights: Mapping[str, float]
    constraints: Constraints
    codecs: tuple[str, ...]
    power: Power | None = None
    exit: Exit | None = None
    run: str = ""
    """The run that scaled it; empty: none."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it; what is not known is null."""
        return {
            "understudy": EXPLORATION_VERSION,
            "exploration": self.model,
            "model": asdict(self.devices[0].profile.model),
            "devices": [device.to_json() for device in self.devices],
            "weights": dict(self.weights),
            "constraints": asdict(self.constraints),
            "codecs": list(self.codecs),
            "power": None if self.power is None else asdict(self.power),
            "exit": None if self.exit is None else asdict(self.exit),
            "run": self.run,
            "panels": [panel.to_json() for panel in self.panels],
        }

    def to_csv(self) -> str:
        """Return a line for each row of each panel."""
        lines = [line for panel in self.panels for line in _lines(panel)]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()

    def with_rows(self, panel: Panel, rows: Mapping[int, Row]) -> "Exploration":
        """Return it with some rows of a panel replaced, by their numbers."""
        changed = replace(
            panel, rows=tuple(rows.get(row.number, row) for row in panel.rows)
        )
        panels = tuple(changed if p is panel else p for p in self.panels)
        return replace(self, panels=panels)


_LEFT_OUT = ("stages", "crossings", "measured")


def _lines(panel: Panel) -> Iterator[dict[str, object]]:
    for row in panel.rows:
        data = {k: v for k, v in row.to_json().items() if k not in _LEFT_OUT}
        data |= {"tensors": " ".join(row.tensors), "notes": "; ".join(row.notes)}
        data["excluded"] = "; ".join(row.excluded)
        measured = row.measured
        data["measured_p50_ms"] = None if measured is None else measured.p50_ms
        data["measured_fps"] = None if measured is None else measured.fps
        yield {"links": panel.name, **data}
