"""Profiles without a measurement: every node takes its share of the output elements."""

from graphs.cuts import cuts
from graphs.onnx_model import Model
from graphs.split import front, needed
from understudy.profile_file import (
    CodecTime,
    CutTime,
    Ends,
    Memory,
    ModelFacts,
    NodeTime,
    Noise,
    Paced,
    Profile,
    Runtime,
    SessionFacts,
    Spread,
    TensorFacts,
)

CODECS = {
    "zstd": CodecTime(2000.0, 800.0),
    "int8": CodecTime(170.0, 60.0),
}


RUNTIME = Runtime(0.3, 0.2, 0.0, 0.0)


def profile_of(model: Model, ms: float, device: str = "pi") -> Profile:
    """Return a profile in which the whole model takes `ms`, and a cut adds nothing."""
    work = {i: _elements(model, i) for i in needed(model, model.outputs, ())}
    total = sum(work.values())
    times = []
    for cut in cuts(model):
        if cut.bytes is None:
            continue
        made = front(model, cut.tensors, model.outputs)
        head = needed(model, (*cut.tensors, *made), ())
        share = sum(work[i] for i in head) / total
        times.append(
            CutTime(
                cut.tensors, ms * share, ms * (1 - share), "measured", 0.0, 0.0,
                10 * share, 10 * (1 - share), {"zstd": cut.bytes // 2},
            )
        )  # fmt: skip
    return Profile(
        device=device,
        model=ModelFacts(
            model.where, model.sha256, _facts(model, model.inputs),
            _facts(model, model.outputs),
        ),
        machine={"processor": "none"},
        session=SessionFacts(),
        noise=Noise(1.0, flagged=False),
        rounds=1,
        seconds=0.0,
        whole=Spread(ms, ms, ms),
        paced=Paced(1.0, 0.0, 0.0),
        runtime=RUNTIME,
        ends=Ends(0.0, 0.0, {}),
        boundary_ms=0.0,
        memory=Memory(10.0, 10.0),
        cuts=tuple(times),
        codecs=CODECS,
        nodes=tuple(
            NodeTime(model.nodes[i].output[0], model.nodes[i].op_type,
                     ms * work[i] / total)
            for i in sorted(work)
        ),
    )  # fmt: skip


def _elements(model: Model, index: int) -> int:
    name = model.nodes[index].output[0]
    return model.tensor(name).token.nbytes if name in model.dynamic else 0


def _facts(model: Model, names: tuple[str, ...]) -> tuple[TensorFacts, ...]:
    tokens = [(name, model.tensor(name).token) for name in names]
    return tuple(TensorFacts(name, t.dtype, t.shape) for name, t in tokens)
