"""The messages of the control lane: msgpack maps of stated size and types.

Nothing here is trusted for its size or its types: a message is at most
`CONTROL_BYTES_MAX` long, its collections are bounded before they are built, and every
field is checked. They start with a magic and a version of their own, so that a peer of
another version is told so instead of being called garbage.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import msgpack

from dataflow.errors import PeerError
from dataflow.wire.header import VERSION

CONTROL_MAGIC = b"UC"
CONTROL_BYTES_MAX = 64 * 1024
NAME_CHARS_MAX, LINE_CHARS_MAX = 200, 2000
PIECE_BYTES_MAX = 16 * 1024
"""Of a segment, at most this much at a time: a beat behind it waits 8 ms at 16 Mbit/s.
"""
STREAMS_MAX = 256


@dataclass(frozen=True, slots=True)
class StreamOffer:
    """A stream that the dialling side wants served: whose tokens, by what."""

    stream: int
    name: str
    segment: int
    window: int
    """Tokens that may be under way at once: the credit asked for."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Dialling side: who I am, and what I want served in the session."""

    kind: ClassVar[str] = "hello"
    device: str
    incarnation: int
    session: int
    offers: tuple[StreamOffer, ...]
    deployment: str = ""
    """Of which it is the device: others have devices of that name, too."""
    play: int = 0
    """Plans of the deployment that it played before, in this life: while one follows
    another it has a session for each."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """Listening side: who I am, my state, and the credit of each stream."""

    kind: ClassVar[str] = "welcome"
    device: str
    incarnation: int
    session: int
    ready: bool
    """False while models load; another Welcome follows when they are there."""
    grants: Mapping[int, int] = field(default_factory=dict)
    """Stream -> limit: ordinals below it may be sent."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Listening side: the session cannot be, until somebody changes something."""

    kind: ClassVar[str] = "refuse"
    session: int
    why: str


@dataclass(slots=True)  # frozen, the one that is made all the time takes thrice as long
class Beat:
    """Dialling side, every 50 ms; the other answers each at once, and tells news."""

    kind: ClassVar[str] = "beat"
    session: int
    ready: bool
    queue: int
    """Tokens that wait for a firing."""
    age_ms: int
    """Age of the firing under way; 0: none."""
    usual_ms: int = 0
    """What that firing takes at best."""
    dead: tuple[str, ...] = ()
    """Ways behind the sender that no token can take, see `wire.relay`."""
    about: str = ""
    """What the sender says of itself to `understudy status`: JSON, short."""
    clock_us: int = 0
    """Monotonic clock of the sender; this and the next two: see `peer_clock`."""
    echo_us: int = 0
    """`clock_us` of the last beat that it heard in the session; 0: of none."""
    held_us: int = 0
    """How long ago it heard that."""


@dataclass(frozen=True, slots=True)
class Flight:
    """Dialling side: what may be in flight to you on the data lane, as it measured."""

    kind: ClassVar[str] = "flight"
    session: int
    bytes: int
    """0: as much as TCP likes."""


@dataclass(frozen=True, slots=True)
class Bye:
    """Either side: the session is over; what I have under way I still answer."""

    kind: ClassVar[str] = "bye"
    session: int


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Anybody with a key: how are you?"""

    kind: ClassVar[str] = "status?"


@dataclass(frozen=True, slots=True)
class StatusReply:
    """The answer, as JSON text."""

    kind: ClassVar[str] = "status"
    text: str


@dataclass(frozen=True, slots=True)
class Want:
    """Either side of a session: a piece of a segment that my plan names."""

    kind: ClassVar[str] = "want"
    sha256: str
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The answer: content from `offset` on, at most `PIECE_BYTES_MAX` of it."""

    kind: ClassVar[str] = "piece"
    sha256: str
    offset: int
    total: int
    """Length of the whole; 0: it is not here."""
    data: bytes


Control = (
    Hello
    | Welcome
    | Refuse
    | Beat
    | Flight
    | Bye
    | StatusRequest
    | StatusReply
    | Want
    | Piece
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CLASSES: Mapping[str, type[Control]] = {cls.kind: cls for cls in get_args(Control)}
_NAMES: Mapping[type[Control], Sequence[str]] = {
    cls: [field.name for field in dataclasses.fields(cls)] for cls in get_args(Control)
}


def pack_control(message: Control) -> bytes:
    """Return `message` as one frame."""
    body: dict[str, Any] = {"kind": message.kind}
    for name in _NAMES[type(message)]:
        body[name] = getattr(message, name)
    if type(message) is Hello:
        body["offers"] = tuple(map(dataclasses.asdict, message.offers))
    data: bytes = CONTROL_MAGIC + bytes([VERSION]) + msgpack.packb(body)
    assert len(data) <= CONTROL_BYTES_MAX, f"{message.kind} of {len(data)} bytes"
    return data


def is_control(frame: bytes) -> bool:
    return frame[:2] == CONTROL_MAGIC


def control_version(frame: bytes) -> int:
    return frame[2] if len(frame) > 2 else 0


def unpack_control(frame: bytes) -> Control:
    """Return the message in `frame`.

    Raises:
        PeerError: Too long, another version, not msgpack, or a field is wrong.
    """
    if len(frame) > CONTROL_BYTES_MAX:
        raise PeerError(
            f"control message: {len(frame)} bytes, at most {CONTROL_BYTES_MAX}; "
            "dropped",
            "size",
        )
    if not is_control(frame) or control_version(frame) != VERSION:
        raise PeerError(
            f"control message: starts with {frame[:3]!r}, not with {CONTROL_MAGIC!r} "
            f"and version {VERSION}; dropped",
            "magic",
        )
    reason = "encoding"
    try:
        body = msgpack.unpackb(
            frame[3:],
            max_str_len=CONTROL_BYTES_MAX,
            max_bin_len=PIECE_BYTES_MAX,
            max_array_len=STREAMS_MAX,
            max_map_len=STREAMS_MAX,
            max_ext_len=0,
            strict_map_key=False,
        )
        reason = "field"
        return _build(body)
    except PeerError:
        raise
    except Exception as error:
        # msgpack raises many types on hostile bytes; all mean the same to us.
        text = f"control message: cannot be read ({str(error)[:80]!r}); dropped"
        raise PeerError(text, reason) from None


def _build(body: Any) -> Control:
    if not isinstance(body, dict) or body.get("kind") not in _CLASSES:
        raise PeerError(
            f"control message: kind is unknown in {str(body)[:80]!r}; dropped", "kind"
        )
    cls = _CLASSES[body.pop("kind")]
    if cls is Hello:
        body["offers"] = tuple(
            StreamOffer(
                stream=_uint(offer["stream"], 32),
                name=_name(offer["name"]),
                segment=_uint(offer["segment"], 64),
                window=_uint(offer["window"], 16),
            )
            for offer in _typed(body["offers"], list)
        )
    if cls is Welcome:
        body["grants"] = {
            _uint(stream, 32): _uint(limit, 64)
            for stream, limit in _typed(body["grants"], dict).items()
        }
    if cls is Beat:
        body["dead"] = tuple(_name(name) for name in _typed(body["dead"], list))
    for key, check in _CHECKS_OF[cls]:
        if key in body:
            body[key] = check(body[key])
    return cls(**body)


def _typed(value: Any, wanted: type) -> Any:
    if type(value) is not wanted:
        raise _wrong(f"{str(value)[:80]!r} is not a {wanted.__name__}")
    return value


def _uint(value: Any, bits: int) -> int:
    number: int = _typed(value, int)
    if not 0 <= number < 1 << bits:
        raise _wrong(f"{number} is beyond u{bits}")
    return number


def _name(value: Any) -> str:
    text: str = _typed(value, str)
    if not 0 < len(text) <= NAME_CHARS_MAX or not text.isprintable():
        raise _wrong(f"{text[:80]!r} is not a name")
    return text


def _deployment(value: Any) -> str:
    return "" if value == "" else _name(value)


def _sha256(value: Any) -> str:
    text: str = _typed(value, str)
    if not _SHA256.fullmatch(text):
        raise _wrong(f"{text[:80]!r} is not a SHA-256")
    return text


def _line(value: Any) -> str:
    """Return what is shown to people: no control sequences for their terminals."""
    text: str = _typed(value, str)
    if len(text) > LINE_CHARS_MAX or not text.isprintable():
        raise _wrong(f"{text[:80]!r} is not one line of text")
    return text


def _wrong(what: str) -> PeerError:
    return PeerError(f"control message: {what}; dropped", "field")


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "device": _name,
    "deployment": _deployment,
    "incarnation": lambda v: _uint(v, 64),
    "session": lambda v: _uint(v, 32),
    "play": lambda v: _uint(v, 32),
    "ready": lambda v: _typed(v, bool),
    "queue": lambda v: _uint(v, 32),
    "age_ms": lambda v: _uint(v, 32),
    "usual_ms": lambda v: _uint(v, 32),
    "clock_us": lambda v: _uint(v, 64),
    "echo_us": lambda v: _uint(v, 64),
    "held_us": lambda v: _uint(v, 64),
    "why": _line,
    "about": lambda v: _typed(v, str),
    "text": lambda v: _typed(v, str),
    "bytes": lambda v: _uint(v, 32),
    "sha256": _sha256,
    "offset": lambda v: _uint(v, 64),
    "total": lambda v: _uint(v, 64),
    "data": lambda v: _typed(v, bytes),
}
_CHECKS_OF: Mapping[type[Control], Sequence[tuple[str, Callable[[Any], Any]]]] = {
    cls: [(name, _CHECKS[name]) for name in names if name in _CHECKS]
    for cls, names in _NAMES.items()
}
