"""What an exploration chooses from: places to cut, and what a device takes up to them.

Every useful cut of the model is one. So are the two ends: the model's input (all of it
is computed by the next device) and its output (all of it was computed by this one).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from actors.codec import CODECS as ENCODINGS
from actors.codec import code_type
from dataflow.errors import UnderstudyError
from dataflow.executor import HAND_OFF_S
from dataflow.graph import TokenType
from dataflow.wire.compression import COMPRESSIONS
from graphs.cuts import Cut, cuts
from graphs.onnx_model import Model
from graphs.plain_branch import ANSWER_BYTES_MIN
from graphs.rounded import OPSET_INT8
from graphs.split import front, needed
from understudy.costs import Crossing, Part
from understudy.profile_file import CutTime, Profile, Source

Kind = Literal["single", "multi", "raw", "jpeg", "input", "local"]
"""A cut of one tensor or of several; all remote, where the frame goes as the camera has
it, as JPEG, or as the tensor that the model takes; and all local."""

REMOTE = ("raw", "jpeg", "input")
UNPREPARED = ("raw", "jpeg")
"""Where the frame crosses before it is made the network's input."""

PROFILE_ERRORS = 0.05, 0.10
"""Of head and tail where only the nodes' times are known: means over five networks were
0.043 and 0.091."""
CODECS = ("none", "lz4", "zstd", "float16", "float16+lz4", "float16+zstd", "int8",
          "int8+lz4", "int8+zstd")  # fmt: skip
"""Those that a deployment knows, the plain one first."""
LOSSLESS = ("none", "lz4", "zstd")


# No slots: cached_property needs an instance dictionary.
@dataclass(frozen=True, eq=False)
class Place:
    """A place where the work can pass from one device to the next.

    Attributes:
        depth: Share of the model's nodes in front of it.
        bytes: What crosses for a frame, as it is computed.
        raw_input: The input leaves the device, as it is or rearranged.
        answer_bytes: Of the model's outputs that are made behind it.
        fixed: Crosses as it is: no codec of ours makes it smaller.
        carried: Outputs of the model that are made in front of it. They cross with it,
            as they are, and come back with those that are made behind it.
    """

    model: Model
    label: str
    kind: Kind
    tensors: tuple[str, ...]
    depth: float
    bytes: int
    raw_input: bool
    answer_bytes: int
    notes: tuple[str, ...] = ()
    fixed: bool = False
    carried: tuple[str, ...] = ()

    @cached_property
    def nodes(self) -> frozenset[int]:
        """Indices of the model's nodes that run in front of it."""
        if self.kind in REMOTE:
            return frozenset()
        if self.kind == "local":
            return frozenset(range(len(self.model.nodes)))
        made = front(self.model, self.tensors, self.model.outputs)
        return frozenset(needed(self.model, (*self.tensors, *made), ()))

    def makes(self, tensor: str) -> bool:
        """Say whether `tensor` is made in front of it."""
        return self.model.producer.get(tensor, -1) in self.nodes

    @cached_property
    def tokens(self) -> tuple[TokenType, ...]:
        return tuple(self.model.tensor(name).token for name in self.tensors)


def places(
    model: Model, *, answer_bytes: int | None = None, jpeg_bytes: int | None = None
) -> tuple[Place, ...]:
    """Return the places of a model, from all remote to all local.

    Args:
        model: What is explored.
        answer_bytes: What comes back of a frame; None: the model's outputs.
        jpeg_bytes: Of a frame as JPEG; None: that way is not looked at.
    """
    every = bytes_of(model, model.outputs) if answer_bytes is None else answer_bytes
    found = list(cuts(model))
    total = max((cut.nodes for cut in found), default=1) + 1
    chosen = list(_remote(model, every, jpeg_bytes))
    for cut in found:
        if cut.useful and cut.bytes is not None:
            made = front(model, cut.tensors, model.outputs)
            chosen.append(_with_answers(_cut(model, cut, total, every), made))
    chosen.append(Place(model, "all local", "local", (), 1.0, 0, False, 0))
    return tuple(chosen)


def _cut(model: Model, cut: Cut, total: int, answer_bytes: int) -> Place:
    assert cut.bytes is not None
    return Place(
        model,
        " + ".join(cut.tensors),
        "single" if len(cut.tensors) == 1 else "multi",
        cut.tensors,
        cut.nodes / total,
        cut.bytes,
        cut.raw_input,
        answer_bytes,
        cut.notes,
    )


def _with_answers(place: Place, made: Sequence[str]) -> Place:
    """Return a cut that outputs of the model, made in front of it, cross too."""
    if not made:
        return place
    return replace(
        place,
        bytes=place.bytes + bytes_of(place.model, made),
        notes=(*place.notes, f"with the answer's {', '.join(made)}"),
        carried=tuple(made),
    )


def bytes_of(model: Model, names: Iterable[str]) -> int:
    """Return the bytes of tensors of a model together."""
    return sum(model.tensor(name).token.nbytes for name in names)


def _remote(model: Model, answer_bytes: int, jpeg_bytes: int | None) -> Iterable[Place]:
    tokens = [model.tensor(name).token for name in model.inputs]
    size = sum(token.nbytes for token in tokens)
    shape = frame_shape(model)
    if shape is not None:
        yield Place(
            model, "send raw (uint8)", "raw", model.inputs, 0.0, math.prod(shape), True,
            answer_bytes, fixed=True,
        )  # fmt: skip
    if jpeg_bytes is not None:
        yield Place(
            model, "send JPEG", "jpeg", model.inputs, 0.0, jpeg_bytes, True,
            answer_bytes, ("without the time that JPEG takes",), fixed=True,
        )  # fmt: skip
    kinds = " + ".join(dict.fromkeys(token.dtype for token in tokens))
    yield Place(
        model, f"all remote ({kinds} input)", "input", model.inputs, 0.0, size, True,
        answer_bytes, fixed=True,
    )  # fmt: skip


def frame_shape(model: Model) -> tuple[int, int, int] | None:
    """Return [H, W, C] of a frame as a camera has it; None: the input is no picture.

    A picture is one input float32 [1, C, H, W] with 1 or 3 channels.
    """
    tokens = [model.tensor(name).token for name in model.inputs]
    if len(tokens) != 1 or tokens[0].dtype != "float32":
        return None
    match tokens[0].shape:
        case (1, (1 | 3) as channels, height, width):
            return height, width, channels
        case _:
            return None


@dataclass(frozen=True, eq=False)
class Device:
    """A device with the profile of the model on it.

    Attributes:
        file: Of the profile.
        factor: How much slower than the profile it is taken to be.
        scaled: Why its times are not those of the profile; empty: they are.
    """

    name: str
    file: str
    profile: Profile
    factor: float = 1.0
    scaled: str = ""

    @cached_property
    def _times(self) -> Mapping[tuple[str, ...], CutTime]:
        return {cut.tensors: cut for cut in self.profile.cuts}

    @cached_property
    def whole_mb(self) -> float:
        """Weights and activations of the whole model: no part of it has more."""
        return max((max(c.head_mb, c.tail_mb) for c in self.profile.cuts), default=0.0)

    def time(self, place: Place) -> CutTime | None:
        """Return what the profile has of a cut; None: nothing."""
        return self._times.get(place.tensors)

    def knows(self, place: Place) -> bool:
        return place.kind not in ("single", "multi") or self.time(place) is not None

    def source(self, places: Collection[Place]) -> Source | Literal["modelled"]:
        """Return where the times at these places come from, the weakest of them."""
        if self.scaled:
            return "modelled"
        times = [self.time(place) for place in places if place.tensors]
        sources = {time.source for time in times if time is not None}
        for weak in ("profile", "interpolated"):
            if weak in sources:
                return weak
        return "measured"

    def added(self, place: Place) -> float:
        """Return what a cut costs in itself: by how much its parts exceed the whole.

        As a share of the whole; 0 where errors of the times may explain it.
        """
        time, whole_ms = self.time(place), self.profile.whole.min_ms
        if time is None or not whole_ms:
            return 0.0
        error_ms = math.hypot(_error_ms(time, "head"), _error_ms(time, "tail"))
        extra_ms = time.head_ms + time.tail_ms - whole_ms
        return extra_ms / whole_ms if extra_ms > error_ms else 0.0

    def part(self, start: Place | None, end: Place | None) -> Part:
        """Return what it takes from one place to another.

        Args:
            start: None: from the input.
            end: None: to the answer.
        """
        ms = error_ms = memory_mb = 0.0
        if end is None or (end is not start and end.kind not in REMOTE):
            ms, error_ms, memory_mb = self._between(_inner(start), _inner(end))
        around_ms = self._around_ms(start, end, ms * self.factor)
        profile, factor = self.profile, self.factor
        ms, error_ms = profile.paced.ms(ms) * factor, self.ms(error_ms)
        added_ms = profile.runtime.error_ms * factor
        error_ms = math.hypot(error_ms, profile.paced.error * ms, added_ms)
        return Part(self.name, ms, error_ms, memory_mb, around_ms, self.message_ms)

    def ms(self, least_ms: float) -> float:
        """Return what work takes here, once started, that takes so long at best."""
        return least_ms * self.profile.paced.slower * self.factor

    @property
    def message_ms(self) -> float:
        """What a message costs it, either way."""
        return self.profile.runtime.message_ms * self.factor

    def _around_ms(
        self, start: Place | None, end: Place | None, best_ms: float
    ) -> float:
        """Return what comes on top of a part that takes `best_ms` at best."""
        runtime, ends = self.profile.runtime, self.profile.ends
        unprepared = start is None or start.kind in UNPREPARED
        passed_on = end is not None and end.kind in UNPREPARED
        added_ms = runtime.frame_ms if start is None else 0.0
        if best_ms > HAND_OFF_S * 1e3:
            added_ms += runtime.hand_off_ms
        work_ms = ends.prepare_ms if unprepared and not passed_on else 0.0
        if end is None:
            work_ms += ends.pack_ms
        return added_ms * self.factor + self.ms(work_ms)

    def _between(
        self, start: Place | None, end: Place | None
    ) -> tuple[float, float, float]:
        first = self.time(start) if start is not None else None
        last = self.time(end) if end is not None else None
        whole = self.profile.whole.min_ms
        if first is None and last is None:
            return whole, 0.0, self.whole_mb
        if last is None and first is not None:
            return first.tail_ms, _error_ms(first, "tail"), first.tail_mb
        if first is None and last is not None:
            return last.head_ms, _error_ms(last, "head"), last.head_mb
        assert first is not None
        assert last is not None
        # Two cuts, so two ways to know it: by the heads and by the tails.
        by_heads = last.head_ms - first.head_ms
        by_tails = first.tail_ms - last.tail_ms
        ms = max(0.0, (by_heads + by_tails) / 2 + self.profile.boundary_ms)
        error_ms = abs(by_heads - by_tails) / 2
        memory_mb = max(0.0, last.head_mb + first.tail_mb - self.whole_mb)
        return ms, error_ms, memory_mb


def _inner(place: Place | None) -> Place | None:
    """Return a place if it lies inside the model."""
    return None if place is None or place.kind not in ("single", "multi") else place


def _error_ms(time: CutTime, side: Literal["head", "tail"]) -> float:
    if side == "head":
        known, ms, usual = time.head_error, time.head_ms, PROFILE_ERRORS[0]
    else:
        known, ms, usual = time.tail_error, time.tail_ms, PROFILE_ERRORS[1]
    return (usual if known is None else known) * ms


def crossings(
    place: Place, near: Device, far: Device, codecs: Collection[str]
) -> tuple[Crossing, ...]:
    """Return the ways in which a frame can cross at a place: one a codec.

    A codec is looked at if both devices have its times, and its size is known: that of
    float16 and int8 follows from the types, any other was measured on a frame. Where
    none of those allowed is left, the frame crosses as it is.

    Args:
        place: Where.
        near: Encodes.
        far: Decodes.
        codecs: Those allowed.
    """
    answer_bytes = place.answer_bytes
    plain = Crossing(place.tensors, place.bytes, place.bytes, answer_bytes)
    if place.fixed:
        return (plain,)
    opset = max(o.version for o in place.model.proto.opset_import if not o.domain)
    if opset < OPSET_INT8:  # then no deployment can have it
        codecs = [codec for codec in codecs if not codec.startswith("int8")]
    found = [plain] if "none" in codecs else []
    time = near.time(place) or far.time(place)
    measured = time.wire if time is not None else {}
    carried = bytes_of(place.model, place.carried)
    mb = (place.bytes - carried) / 1e6
    for codec in CODECS[1:]:
        size = measured.get(codec) or _coded_bytes(codec, place.tokens)
        encode, decode = (d.profile.codecs.get(codec) for d in (near, far))
        if codec in codecs and size and encode and decode:
            back = _answer(place, codec, near, far)
            found.append(
                Crossing(
                    place.tensors,
                    place.bytes,
                    size + carried,
                    back.bytes,
                    codec,
                    near.ms(encode.encode_us_per_mb * mb / 1e3) + back.decode_ms,
                    far.ms(decode.decode_us_per_mb * mb / 1e3) + back.encode_ms,
                )
            )
    return tuple(found) or (plain,)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What comes back: bytes on the wire, and what compressing them costs."""

    bytes: int
    encode_ms: float = 0.0
    decode_ms: float = 0.0


def _answer(place: Place, codec: str, near: Device, far: Device) -> _Answer:
    """Return how the answer comes back where a frame crosses with `codec`.

    A large one is compressed as the frame was; it is never encoded.
    """
    plain = _Answer(place.answer_bytes)
    packed = next((c for c in COMPRESSIONS if c in codec.split("+")), "")
    size = (far.profile.ends.answer or near.profile.ends.answer).get(packed)
    encode, decode = far.profile.codecs.get(packed), near.profile.codecs.get(packed)
    if place.answer_bytes < ANSWER_BYTES_MIN or not (size and encode and decode):
        return plain
    whole = bytes_of(place.model, place.model.outputs)
    mb = place.answer_bytes / 1e6
    return _Answer(
        round(size * place.answer_bytes / whole),
        far.ms(encode.encode_us_per_mb * mb / 1e3),
        near.ms(decode.decode_us_per_mb * mb / 1e3),
    )


def _coded_bytes(codec: str, tokens: Iterable[TokenType]) -> int | None:
    """Return the bytes that an encoding makes; None: they depend on the values."""
    if codec not in ENCODINGS:
        return None
    return sum(
        (code_type(codec, t) if t.dtype == "float32" else t).nbytes for t in tokens
    )


def check_same(model: Model, devices: Iterable[Device]) -> None:
    """Check that profiles are of this model.

    Raises:
        UnderstudyError: One is of another.
    """
    for device in devices:
        other = device.profile.model
        if other.sha256 != model.sha256:
            raise UnderstudyError(
                f"profile '{device.name}': of {other.file} ({other.sha256:.12}), not "
                f"of {model.where} ({model.sha256:.12}); profile this model there, "
                "with the same sizes (--dim)"
            )
