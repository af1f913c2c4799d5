"""Measure a model on this machine, at every place where it can be cut.

Nothing stands in for the real thing where that is affordable: the whole model, and head
and tail of a few cuts, run with the session options of a device. The cuts between are
predicted from these and from one run in which onnxruntime times its kernels, see
`understudy.prediction`. The kernels' times alone would not do: they are of the whole
graph, where nothing has to be written out at a cut.
"""

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.sessions import check_providers
from dataflow.clock import now_s
from graphs.cuts import Cut, cuts
from graphs.footprint import footprint_bytes, sides, weight_bytes
from graphs.onnx_model import Model, Tensor
from understudy.codec_times import codec_times, wire_bytes
from understudy.ends_profiling import ends
from understudy.machine import machine_facts
from understudy.measuring import Measuring, Tell, Times
from understudy.model_input import natural, read_input
from understudy.prediction import (
    Measured,
    Place,
    Predictor,
    bounds,
    left_out,
    to_measure,
)
from understudy.profile_file import (
    CodecTime,
    CutTime,
    ModelFacts,
    NodeTime,
    Noise,
    Paced,
    Profile,
    Runtime,
    SessionFacts,
    Source,
    Spread,
    TensorFacts,
)
from understudy.runtime_profiling import runtime
from understudy.timing import runs_alone

ANCHORS = 8
NOISE_MAX = 2.0
"""Above it (p90 / least of the probe) the machine was too busy."""
_CODEC_BYTES = 500_000
"""Codecs are timed on the tensor whose size is nearest to this."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure, and how.

    Attributes:
        device: A name for this machine; empty: that of the host.
        session: How it computes.
        anchors: Cuts to measure, beside those that may be best; None: all useful ones.
        front: Measure those that may be best.
        rounds: None: as many as a few seconds allow.
        input: File with the frame to measure with; None: one is made up.
        sizes: For open dimensions, as `Model.read` takes them.
        runtime: What playing adds on this machine; None: it is measured, too.
    """

    device: str = ""
    session: SessionFacts = field(default_factory=SessionFacts)
    anchors: int | None = ANCHORS
    front: bool = True
    rounds: int | None = None
    input: Path | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    runtime: Runtime | None = None


def profile(path: Path, wanted: Wanted, tell: Tell) -> Profile:
    """Return the profile of the model in the file `path`.

    Args:
        path: An ONNX file.
        wanted: What to measure.
        tell: Is told now and then what is done.

    Raises:
        MisuseError: No such file.
        UnderstudyError: It cannot be profiled: says why.
    """
    start_s = now_s()
    check_providers(wanted.session.providers)
    tell("reading the model")
    model = Model.read(path, wanted.sizes)
    inputs, outputs = model.interface()
    feed = read_input(wanted.input, inputs) if wanted.input else natural(inputs)
    found = [cut for cut in cuts(model) if cut.bytes is not None]
    with (
        tempfile.TemporaryDirectory(prefix="understudy-profile-") as folder,
        Measuring(model, feed, wanted.session, Path(folder), tell) as measuring,
    ):
        paced_s = [measuring.paced()]
        shares = measuring.shares()
        places = [_place(model, cut, shares) for cut in found]
        times = measuring.times(_chosen(found, places, wanted), wanted.rounds)
        paced_s.append(measuring.paced())
        apart = _middle(times)
        parts_s = measuring.paced_parts(apart) if apart else None
        tell("encoding")
        wires, codecs = _encoded(measuring, found)
        stands_around = ends(model, measuring.answer())
        paced_s.append(measuring.paced())
    tell("running two devices that do nothing")
    added = wanted.runtime or runtime()
    return Profile(
        device=wanted.device or host_name(),
        model=ModelFacts(
            path.name, model.sha256, _facts(inputs), _facts(outputs), model.sizes
        ),
        machine={**machine_facts(), "times": _how(wanted.session)},
        session=wanted.session,
        noise=_noise(times),
        rounds=len(times.whole_s),
        seconds=round(now_s() - start_s, 2),
        whole=_spread(times),
        paced=paced(times, paced_s, apart, parts_s),
        runtime=added,
        ends=stands_around,
        boundary_ms=_boundary_ms(times),
        memory=measuring.memory,
        cuts=_rows(model, found, places, times, wires),
        codecs=codecs,
        nodes=_nodes(model, shares, times.whole_ms),
    )


def host_name() -> str:
    return platform.node() or "here"


def _facts(tensors: Sequence[Tensor]) -> tuple[TensorFacts, ...]:
    return tuple(TensorFacts(t.name, t.token.dtype, t.token.shape) for t in tensors)


def _place(model: Model, cut: Cut, shares: Mapping[int, float]) -> Place:
    head, _ = sides(model, cut.tensors)
    assert cut.bytes is not None
    return Place(sum(shares.get(node, 0) for node in head), cut.bytes)


def _chosen(found: Sequence[Cut], places: Sequence[Place], wanted: Wanted) -> list[Cut]:
    """Return the cuts to measure."""
    useful = [i for i, cut in enumerate(found) if cut.useful]
    if wanted.anchors is None:
        return [found[i] for i in useful]
    among = [places[i] for i in useful]
    chosen = to_measure(among, wanted.anchors, front=wanted.front)
    return [found[useful[i]] for i in chosen]


def _encoded(
    measuring: Measuring, found: Sequence[Cut]
) -> tuple[list[Mapping[str, int]], dict[str, CodecTime]]:
    """Return bytes on the wire of each cut, and what codecs take."""
    names = [*dict.fromkeys(name for cut in found for name in cut.tensors)]
    wires: dict[str, Mapping[str, int]] = {}
    typical: Array | None = None
    for name, array in measuring.tensors(names):
        wires[name] = wire_bytes([array])
        if array.dtype == np.float32 and (
            typical is None
            or abs(array.nbytes - _CODEC_BYTES) < abs(typical.nbytes - _CODEC_BYTES)
        ):
            typical = array
    sums: list[Mapping[str, int]] = [_sum([wires[n] for n in c.tensors]) for c in found]
    return sums, {} if typical is None else codec_times(typical)


def _sum(wires: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the bytes of several tensors, by the codecs that all of them have."""
    return {
        codec: sum(wire[codec] for wire in wires)
        for codec in wires[0]
        if all(codec in wire for wire in wires)
    }


def _noise(times: Times) -> Noise:
    ratio = float(np.percentile(times.probe_s, 90)) / min(times.probe_s)
    return Noise(round(ratio, 3), flagged=ratio > NOISE_MAX)


def _how(session: SessionFacts) -> str:
    clock = "processor time of one thread" if runs_alone(session) else "wall time"
    return f"the least {clock} of some rounds; p50 and p95 wall time"


def _spread(times: Times) -> Spread:
    p50, p95 = np.percentile(times.wall_s, (50, 95))
    found_s = min(times.whole_s), p50, p95
    return Spread(*(round(float(s) * 1e3, 4) for s in found_s))


def _middle(times: Times) -> Cut | None:
    """Return the measured cut whose parts are the most alike; None: there is none."""
    return min(
        times.cuts_s,
        key=lambda cut: abs(min(times.cuts_s[cut][0]) - min(times.cuts_s[cut][1])),
        default=None,
    )


def paced(
    times: Times, paced_s: Sequence[float], cut: Cut | None, parts_s: float | None
) -> Paced:
    """Return how much slower the model is as frames come, by several looks.

    The whole starts once, the parts of a cut twice: what they take together, beyond
    what they do at best, tells a start from a slower run. The whole's time is kept.

    Args:
        times: At best.
        paced_s: Of the whole, at a pace.
        cut: One that was measured.
        parts_s: Of its head and tail together, at a pace; None: there is no cut.
    """
    typical_s, least_s = float(np.mean(paced_s)), min(times.whole_s)
    looked_apart = (max(paced_s) - min(paced_s)) / typical_s
    start_s = 0.0
    if cut is not None and parts_s is not None:
        both_s = sum(map(min, times.cuts_s[cut]))
        slower = (2 * typical_s - parts_s) / (2 * least_s - both_s)
        start_s = max(0.0, typical_s - least_s * max(1.0, slower))
    slower = (typical_s - start_s) / least_s
    return Paced(round(slower, 4), round(start_s * 1e3, 4), round(looked_apart, 4))


def _boundary_ms(times: Times) -> float:
    extra_ms = [
        (min(head_s) + min(tail_s)) * 1e3 - times.whole_ms
        for head_s, tail_s in times.cuts_s.values()
    ]
    return round(float(np.median(extra_ms)), 4) if extra_ms else 0.0


def _rows(
    model: Model,
    found: Sequence[Cut],
    places: Sequence[Place],
    times: Times,
    wires: Sequence[Mapping[str, int]],
) -> tuple[CutTime, ...]:
    """Return a row for each cut."""
    measured = {
        cut: Measured(place, *(min(part_s) * 1e3 for part_s in times.cuts_s[cut]))
        for cut, place in zip(found, places, strict=True)
        if cut in times.cuts_s
    }
    known = [*measured.values()]
    predictor = Predictor(times.whole_ms, known)
    errors = left_out(times.whole_ms, known)
    weights = weight_bytes(model)
    repeated = [_repeated(part_s) for both in times.cuts_s.values() for part_s in both]
    floor = float(np.median(repeated)) if repeated else 0.0
    rows = []
    for cut, place, wire in zip(found, places, wires, strict=True):
        source: Source = "interpolated" if known else "profile"
        error: tuple[float, float] | None = None
        if truth := measured.get(cut):
            source = "measured"
            head_ms, tail_ms = truth.head_ms, truth.tail_ms
            head_s, tail_s = times.cuts_s[cut]
            error = _repeated(head_s), _repeated(tail_s)
        else:
            head_ms, tail_ms = predictor(place)
            if errors:
                error = bounds(place, (head_ms, tail_ms), errors, floor)
        head_mb, tail_mb = (
            round(footprint_bytes(model, nodes, weights) / 1e6, 3)
            for nodes in sides(model, cut.tensors)
        )
        rows.append(
            CutTime(
                tensors=cut.tensors,
                head_ms=round(head_ms, 4),
                tail_ms=round(tail_ms, 4),
                source=source,
                head_error=None if error is None else round(error[0], 4),
                tail_error=None if error is None else round(error[1], 4),
                head_mb=head_mb,
                tail_mb=tail_mb,
                wire=wire,
            )
        )
    return tuple(rows)


def _repeated(times_s: Sequence[float]) -> float:
    """Return how much the least of every other time differs from that of the rest."""
    return abs(min(times_s[::2]) / min(times_s[1::2] or times_s) - 1)


def _nodes(
    model: Model, shares: Mapping[int, float], whole_ms: float
) -> tuple[NodeTime, ...]:
    return tuple(
        NodeTime(
            next(name for name in model.nodes[i].output if name),
            model.nodes[i].op_type,
            round(share * whole_ms, 5),
        )
        for i, share in sorted(shares.items())
    )
