"""The profile of a model on a device, and of a link: small JSON files to carry home.

Times are of one frame, on the machine and with the session options that the file names.
Sizes are megabytes of 10^6 bytes; codec times are per megabyte of what is encoded,
before it is encoded.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from dataflow.errors import MisuseError, UnderstudyError
from understudy.json_fields import Fields, WrongFieldError

PROFILE_VERSION = 2
Source = Literal["measured", "interpolated", "profile"]
"""How a row came to be: a session of this head and of this tail ran; between two that
ran; or from the times of single nodes alone."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model was measured: `sha256` and `dims` are `sha256` and `sizes` of it."""

    file: str
    sha256: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    dims: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """How onnxruntime ran it: as a device with these settings runs its segments."""

    threads: int = 1
    cores: tuple[int, ...] = ()
    """The logical cores that it was held to; empty: all."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    optimisation: str = "all"


@dataclass(frozen=True, slots=True)
class Noise:
    """How still the machine was: a fixed product of matrices, again and again."""

    p90_over_min: float
    flagged: bool
    """Too busy for the figures to be relied on."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of the whole model, ms.

    The least is what rows are to be compared with: of the processor, where one thread
    computes. The percentiles are of the wall, with what else ran on the machine.
    """

    min_ms: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Paced:
    """A model, run now and then, as frames come, and not again and again.

    Each part of it pays for its start: the processor slept, and caches are cold.

    Attributes:
        slower: Median wall time over the least, once started.
        start_ms: For the start of the whole, or of a part.
        error: Relative; it was looked at a few times, and so far apart they were.
    """

    slower: float
    start_ms: float
    error: float

    def ms(self, least_ms: float) -> float:
        """Return what takes so long at best; 0 if nothing is computed."""
        return least_ms * self.slower + self.start_ms if least_ms else 0.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What playing on a device adds to the work, ms: medians of frames at a pace.

    Attributes:
        frame_ms: From a frame to its answer, where the work takes no time.
        message_ms: A message, at one of its ends: half of what it takes over loopback.
        hand_off_ms: To compute what is too long for the I/O loop on another thread.
        error_ms: Of a frame that is answered elsewhere; the thirds of the measurement
            were so far apart.
    """

    frame_ms: float
    message_ms: float
    hand_off_ms: float
    error_ms: float


@dataclass(frozen=True, slots=True)
class Ends:
    """What stands around a network: in front of it, and behind it.

    Attributes:
        prepare_ms: To make its input of pixels, at best; 0 where that is no picture.
        pack_ms: To make one answer of several outputs, at best.
        answer: Compression -> bytes that the answer to the measured frame becomes.
    """

    prepare_ms: float
    pack_ms: float
    answer: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the session of the whole added to the process, and what it held at most."""

    session_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class CutTime:
    """What head and tail take when the model is cut at `tensors`.

    Attributes:
        tensors: As in `graphs.cuts.Cut`.
        head_ms: Of one frame.
        tail_ms: Of one frame.
        source: Where both times come from.
        head_error: Bound of the relative error of `head_ms`; None: unknown.
        tail_error: The same of `tail_ms`.
        head_mb: Weights and activations of the head.
        tail_mb: The same of the tail.
        wire: Codec -> bytes that crossed for the frame that was measured. Lossless
            compression depends on the values, so another frame gives other figures.
    """

    tensors: tuple[str, ...]
    head_ms: float
    tail_ms: float
    source: Source
    head_error: float | None
    tail_error: float | None
    head_mb: float
    tail_mb: float
    wire: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CodecTime:
    """What a codec takes on this device, measured on a tensor of the model."""

    encode_us_per_mb: float
    decode_us_per_mb: float


@dataclass(frozen=True, slots=True)
class NodeTime:
    """The share of one ONNX node in the whole, under the first tensor that it makes."""

    tensor: str
    op: str
    ms: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A model measured on a device.

    Attributes:
        device: A name that the user knows it by.
        model: What was measured.
        machine: Facts as `understudy.machine` gives them.
        session: How it ran.
        noise: Of the machine, meanwhile.
        rounds: How often the whole was measured.
        seconds: What profiling took.
        whole: The uncut model.
        paced: The same, as frames come.
        runtime: What the device adds.
        ends: What stands around the model.
        boundary_ms: What a cut adds to head and tail together, as the median of the
            measured cuts has it; may be below 0.
        memory: Of the whole.
        cuts: In the order of the model.
        codecs: Name, such as ``int8+zstd`` -> its times.
        nodes: Their `ms` sum up to the whole's.
    """

    device: str
    model: ModelFacts
    machine: Mapping[str, str]
    session: SessionFacts
    noise: Noise
    rounds: int
    seconds: float
    whole: Spread
    paced: Paced
    runtime: Runtime
    ends: Ends
    boundary_ms: float
    memory: Memory
    cuts: tuple[CutTime, ...]
    codecs: Mapping[str, CodecTime]
    nodes: tuple[NodeTime, ...]

    def cut(self, tensors: tuple[str, ...]) -> CutTime | None:
        """Return the times of the cut at `tensors`; None: it was not profiled."""
        return next((cut for cut in self.cuts if cut.tensors == tensors), None)


@dataclass(frozen=True, slots=True)
class LinkPoint:
    """Messages of one size: ``there`` from the device that measures, or ``back``."""

    way: str
    bytes: int
    ms: float


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """A link measured between two devices.

    Attributes:
        link: A name that the user knows it by.
        there_mbit_s: From the device that measured to the other.
        back_mbit_s: From the other to the device that measured.
        rtt_ms: Median round trip of a small message, less that over loopback.
        jitter_ms: p95 less the median of those round trips.
        points: What was sent.
        machine: Facts of the device that measured.
    """

    link: str
    there_mbit_s: float
    back_mbit_s: float
    rtt_ms: float
    jitter_ms: float
    points: tuple[LinkPoint, ...]
    machine: Mapping[str, str]


def write_profile(profile: Profile | LinkProfile, path: Path) -> None:
    """Write a profile into the file `path`, whole or not at all.

    Raises:
        MisuseError: It cannot be written.
    """
    data = asdict(profile)
    if isinstance(profile, LinkProfile):
        there, back = data.pop("there_mbit_s"), data.pop("back_mbit_s")
        data["mbit_s"] = {"there": there, "back": back}
        data["points"] = [[*asdict(point).values()] for point in profile.points]
    else:
        data = {"profile": data.pop("device"), **data}
        for side in ("inputs", "outputs"):
            data["model"][side] = [[*each.values()] for each in data["model"][side]]
        data["nodes"] = [[*node.values()] for node in data["nodes"]]
    partial = _partial(path)
    try:
        partial.write_text(_dumped({"understudy": PROFILE_VERSION, **data}))
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written before measuring, not after it.

    Raises:
        MisuseError: It is a folder, its folder is not there or not ours.
    """
    if path.is_dir():
        raise MisuseError(f"{path}: is a folder; name a file in it")
    try:
        _partial(path).touch()
        _partial(path).unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _unwritable(path: Path, error: OSError) -> MisuseError:
    return MisuseError(
        f"{path}: cannot be written ({error.strerror}); name another file"
    )


def _dumped(data: Mapping[str, Any]) -> str:
    """Return JSON with one line for each entry: small, and still readable."""
    lines = []
    for key, value in data.items():
        if isinstance(value, (list, tuple)):
            items = ",\n  ".join(json.dumps(item) for item in value)
            lines.append(f"{json.dumps(key)}: [\n  {items}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def read_profile(path: Path) -> Profile:
    """Return the profile of a model in the file `path`.

    Raises:
        MisuseError: No such file.
        UnderstudyError: It is not such a profile; says where.
    """
    return _read(path, "profile", _profile)


def read_link_profile(path: Path) -> LinkProfile:
    """Return the profile of a link in the file `path`.

    Raises:
        MisuseError: No such file.
        UnderstudyError: It is not such a profile; says where.
    """
    return _read(path, "link", _link)


_Made = TypeVar("_Made")
_KINDS = {
    "profile": ("a model", "`understudy profile MODEL`"),
    "link": ("a link", "`understudy profile --link HOST:PORT`"),
}


def _read(path: Path, kind: str, made: Callable[[Fields], _Made]) -> _Made:
    what, command = _KINDS[kind]
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise MisuseError(
            f"{path}: cannot be read ({error.strerror}); measure one with {command}"
        ) from None
    except (ValueError, RecursionError) as error:
        why = "not even text" if isinstance(error, UnicodeError) else error
        raise UnderstudyError(
            f"{path}: not JSON ({why}); measure it again with {command}"
        ) from None
    keys = data.keys() if isinstance(data, dict) else set()
    if kind not in keys:
        found = next((_KINDS[k][0] for k in _KINDS if k in keys), None)
        it_is = f"the profile of {found}, not" if found else "not the profile"
        raise UnderstudyError(f"{path}: {it_is} of {what}; give what {command} wrote")
    if data.get("understudy") != PROFILE_VERSION:
        raise UnderstudyError(
            f"{path}: written by another version of understudy (of profiles: "
            f"{data.get('understudy')}, this one's: {PROFILE_VERSION}); profile again "
            f"with {command}"
        )
    try:
        return made(Fields(data))
    except WrongFieldError as wrong:
        raise UnderstudyError(
            f"{path}: {wrong}; measure it again with {command}"
        ) from None


def _profile(data: Fields) -> Profile:
    noise, whole, memory = map(data.fields, ("noise", "whole", "memory"))
    paced, runtime, ends = map(data.fields, ("paced", "runtime", "ends"))
    added = ("frame_ms", "message_ms", "hand_off_ms", "error_ms")
    return Profile(
        device=data.text("profile"),
        model=_model(data.fields("model")),
        machine=data.facts("machine"),
        session=_session(data.fields("session")),
        noise=Noise(noise.size("p90_over_min"), noise.flag("flagged")),
        rounds=data.count("rounds"),
        seconds=data.size("seconds"),
        whole=Spread(*map(whole.size, ("min_ms", "p50_ms", "p95_ms"))),
        paced=Paced(*map(paced.size, ("slower", "start_ms", "error"))),
        runtime=Runtime(*map(runtime.size, added)),
        ends=Ends(
            ends.size("prepare_ms"), ends.size("pack_ms"), _sizes(ends.fields("answer"))
        ),
        boundary_ms=data.number("boundary_ms"),
        memory=Memory(memory.size("session_mb"), memory.size("peak_mb")),
        cuts=tuple(map(_cut, data.objects("cuts"))),
        codecs={
            name: CodecTime(*map(codec.size, ("encode_us_per_mb", "decode_us_per_mb")))
            for name, codec in data.each("codecs").items()
        },
        nodes=tuple(
            NodeTime(row.text("tensor"), row.text("operator"), row.size("ms"))
            for row in data.rows("nodes", "tensor", "operator", "ms")
        ),
    )


def _model(model: Fields) -> ModelFacts:
    inputs, outputs = (
        tuple(
            TensorFacts(row.text("name"), row.text("dtype"), row.counts("shape"))
            for row in model.rows(side, "name", "dtype", "shape")
        )
        for side in ("inputs", "outputs")
    )
    fixed = model.fields("dims")
    dims = {name: fixed.count(name) for name in fixed.data}
    return ModelFacts(model.text("file"), model.text("sha256"), inputs, outputs, dims)


def _session(session: Fields) -> SessionFacts:
    return SessionFacts(
        session.count("threads"),
        session.counts("cores"),
        session.texts("providers"),
        session.text("optimisation"),
    )


_SOURCES: Mapping[str, Source] = {name: name for name in get_args(Source)}


def _cut(cut: Fields) -> CutTime:
    source = _SOURCES.get(cut.text("source"))
    if source is None:
        known = ", ".join(_SOURCES)
        raise WrongFieldError(
            f"'{cut.where}source' is '{cut.text('source')}', not one of {known}"
        )
    return CutTime(
        tensors=cut.texts("tensors"),
        head_ms=cut.size("head_ms"),
        tail_ms=cut.size("tail_ms"),
        source=source,
        head_error=cut.size_or_none("head_error"),
        tail_error=cut.size_or_none("tail_error"),
        head_mb=cut.size("head_mb"),
        tail_mb=cut.size("tail_mb"),
        wire=_sizes(cut.fields("wire")),
    )


def _sizes(bytes_of: Fields) -> dict[str, int]:
    return {codec: bytes_of.count(codec) for codec in bytes_of.data}


def _link(data: Fields) -> LinkProfile:
    mbit_s = data.fields("mbit_s")
    return LinkProfile(
        link=data.text("link"),
        there_mbit_s=mbit_s.size("there"),
        back_mbit_s=mbit_s.size("back"),
        rtt_ms=data.size("rtt_ms"),
        jitter_ms=data.size("jitter_ms"),
        points=tuple(
            LinkPoint(row.text("way"), row.count("bytes"), row.size("ms"))
            for row in data.rows("points", "way", "bytes", "ms")
        ),
        machine=data.facts("machine"),
    )
