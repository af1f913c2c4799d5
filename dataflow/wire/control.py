"""The messages of the control lane: msgpack maps of stated size and types.

Nothing here is trusted for its size or its types: a message is at most
`CONTROL_BYTES_MAX` long, its collections are bounded before they are built, and every
field is checked. They start with a magic and a version of their own, so that a peer of
another version is told so instead of being called garbage.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import msgpack

from dataflow.errors import PeerError
from dataflow.wire.header import VERSION

CONTROL_MAGIC = b"UC"
CONTROL_BYTES_MAX = 64 * 1024
NAME_CHARS_MAX = 200
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
    """Dialling side: who I am, and what I want served in this session."""

    kind: ClassVar[str] = "hello"
    device: str
    incarnation: int
    session: int
    offers: tuple[StreamOffer, ...]


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
    """Listening side: this session cannot be, until somebody changes something."""

    kind: ClassVar[str] = "refuse"
    session: int
    why: str


@dataclass(frozen=True, slots=True)
class Beat:
    """Either side, every 50 ms, from the thread that serves the links."""

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
    """Devices that the sender's own links have lost."""
    about: str = ""
    """What the sender says of itself to `understudy status`: JSON, short."""


@dataclass(frozen=True, slots=True)
class Bye:
    """Either side: I am going; what I have under way I still answer."""

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


Control = Hello | Welcome | Refuse | Beat | Bye | StatusRequest | StatusReply
_CLASSES: Mapping[str, type[Control]] = {cls.kind: cls for cls in get_args(Control)}


def pack_control(message: Control) -> bytes:
    """Return `message` as one frame."""
    body = {"kind": message.kind, **dataclasses.asdict(message)}
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
            f"control message: {len(frame)} bytes, at most {CONTROL_BYTES_MAX}; dropped"
        )
    if not is_control(frame) or control_version(frame) != VERSION:
        raise PeerError(
            f"control message: starts with {frame[:3]!r}, not with {CONTROL_MAGIC!r} "
            f"and version {VERSION}; dropped"
        )
    try:
        body = msgpack.unpackb(
            frame[3:],
            max_str_len=CONTROL_BYTES_MAX,
            max_bin_len=256,
            max_array_len=STREAMS_MAX,
            max_map_len=STREAMS_MAX,
            max_ext_len=0,
            strict_map_key=False,
        )
        return _build(body)
    except PeerError:
        raise
    except Exception as error:
        # msgpack raises many types on hostile bytes; all mean the same to us.
        raise PeerError(f"control message: cannot be read ({error}); dropped") from None


def _build(body: Any) -> Control:
    if not isinstance(body, dict) or body.get("kind") not in _CLASSES:
        raise PeerError(
            f"control message: kind is unknown in {str(body)[:80]}; dropped"
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
            for offer in body["offers"]
        )
    if cls is Welcome:
        body["grants"] = {
            _uint(stream, 32): _uint(limit, 64)
            for stream, limit in _typed(body["grants"], dict).items()
        }
    if cls is Beat:
        body["dead"] = tuple(_name(name) for name in body["dead"])
    for key, check in _CHECKS.items():
        if key in body:
            body[key] = check(body[key])
    return cls(**body)


def _typed(value: Any, wanted: type) -> Any:
    if type(value) is not wanted:
        raise PeerError(
            f"control message: {str(value)[:80]!r} is not a {wanted.__name__}; dropped"
        )
    return value


def _uint(value: Any, bits: int) -> int:
    number: int = _typed(value, int)
    if not 0 <= number < 1 << bits:
        raise PeerError(f"control message: {number} is beyond u{bits}; dropped")
    return number


def _name(value: Any) -> str:
    text: str = _typed(value, str)
    if not 0 < len(text) <= NAME_CHARS_MAX or not text.isprintable():
        raise PeerError(f"control message: {text[:80]!r} is not a name; dropped")
    return text


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "device": _name,
    "incarnation": lambda v: _uint(v, 64),
    "session": lambda v: _uint(v, 32),
    "ready": lambda v: _typed(v, bool),
    "queue": lambda v: _uint(v, 32),
    "age_ms": lambda v: _uint(v, 32),
    "usual_ms": lambda v: _uint(v, 32),
    "why": lambda v: _typed(v, str),
    "about": lambda v: _typed(v, str),
    "text": lambda v: _typed(v, str),
}
