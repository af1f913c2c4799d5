"""Segments by hash: what a device has of its plans, and what it gets from its peers.

A plan may come to a machine as ``plan.json`` alone. What the device lacks of it is
asked of the peers that it dials and of those that dial it, over the control lane, one
bounded piece at a time, so that no beat waits behind more than one piece. A peer gives
what its own plans name and nothing else; a name is a SHA-256, never a path. The plan
says how long each segment is, so a peer that says otherwise is found out before its
first byte is kept, and content of another hash never gets the segment's name.

What came stays in a partial file, and the next peer, or the next life of this process,
goes on where it ends.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.plan import SEGMENTS, Plan
from dataflow.wire.control import PIECE_BYTES_MAX, Piece, Want

ANSWER_S = 2.0
"""How long a peer may take to send a piece before another one is asked."""
AGAIN_S = 5.0
"""How long a peer that could not give a segment is not asked for it."""
_NEVER_S = float("inf")


class Peer(NamedTuple):
    """A device that may be asked, in one session."""

    name: str
    session: int
    route: bytes = b""
    """Of its control lane; empty where we dialled."""
    line: str = ""
    """Where we dialled: the name of its sockets."""


Ask = Callable[[Peer, Want], bool]
"""Sends on the control lane; False when it would block or nobody is there."""


@dataclass(slots=True)
class _Missing:
    """A segment that is not here yet, and where it is wanted."""

    sha256: str
    size: int
    partial: Path
    targets: tuple[Path, ...]
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    givers: set[Peer | None] = field(default_factory=set)
    """Whose pieces are in the partial file; None: of an earlier life."""

    def resume(self) -> None:
        """Go on where the partial file ends."""
        try:
            with self.partial.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length < self.size:
                    self.digest = hashlib.file_digest(file, hashlib.sha256)
                    self.length = length
                    self.givers.add(None)
        except OSError:
            return

    def start_again(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.length, self.digest = 0, hashlib.sha256()
        self.givers.clear()

    def append(self, data: bytes) -> None:
        with self.partial.open("r+b" if self.length else "wb") as file:
            file.seek(self.length)
            file.write(data)
        self.length += len(data)
        self.digest.update(data)

    def name(self) -> None:
        """Give the whole content its name, in each plan that wants it."""
        first, *others = self.targets
        self.partial.replace(first)
        for other in others:
            copy = other.with_name(self.partial.name)
            shutil.copyfile(first, copy)
            copy.replace(other)


@dataclass(frozen=True, slots=True)
class _Asked:
    peer: Peer
    want: Want
    until_s: float


class Segments:
    """The segments of a device's plans: gives those that are here, gets the others.

    Args:
        plans: What the device plays.
        device: Its name: of the segments that a plan names it needs those of its own
            actors.
        ask: Sends a question to a peer.
        events: The device's log.
    """

    def __init__(
        self, plans: Iterable[Plan], *, device: str, ask: Ask, events: EventLog
    ) -> None:
        self._ask = ask
        self._events = events
        self._device = device
        self._files: dict[str, list[Path]] = {}
        self._missing: dict[str, _Missing] = {}
        self._asked: _Asked | None = None
        self._unable_s: dict[tuple[Peer, str], float] = {}
        """Who could not give what, and when it may be asked again."""
        self._told: tuple[list[str], list[str]] = [], []
        self.add(plans)

    def add(self, plans: Iterable[Plan]) -> None:
        """Look for the segments of further plans.

        Raises:
            UnderstudyError: There is no room for one.
        """
        needed: dict[str, list[Path]] = {}
        sizes: dict[str, int] = {}
        for plan in plans:
            sizes |= plan.segments
            own = plan.segments_of(self._device)
            for sha256 in plan.segments:
                path = plan.folder / SEGMENTS / f"{sha256}.onnx"
                files = self._files.setdefault(sha256, [])
                if path not in files:
                    files.append(path)
                if sha256 in own:
                    needed.setdefault(sha256, []).append(path)
        self._missing |= self._lacking(needed, sizes)

    @property
    def missing(self) -> list[str]:
        """SHA-256 of what the device needs and does not have."""
        return list(self._missing)

    def lacking(self, plan: Plan) -> bool:
        """Tell whether some segment is missing that the device plays in `plan`."""
        return not self._missing.keys().isdisjoint(plan.segments_of(self._device))

    def give(self, want: Want) -> Piece:
        """Return the piece that a peer wants, or one that says it is not here."""
        offset, sha256 = want.offset, want.sha256
        for path in self._files.get(sha256, ()):
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    file.seek(min(offset, size))
                    data = file.read(PIECE_BYTES_MAX)
            except OSError:
                continue
            return Piece(sha256, offset, size, data)
        return Piece(sha256, offset, 0, b"")

    def take(self, peer: Peer, piece: Piece, now_s: float) -> None:
        """Keep a piece that came, if it is the one that was asked for.

        Raises:
            UnderstudyError: It cannot be written.
        """
        asked = self._asked
        if asked is None or (peer, piece.sha256, piece.offset) != (
            asked.peer,
            asked.want.sha256,
            asked.want.offset,
        ):
            return  # of an older question
        self._asked = None
        missing = self._missing[piece.sha256]
        expected = min(PIECE_BYTES_MAX, missing.size - missing.length)
        if piece.total == 0:
            self._cannot(peer, missing, "does not have it", now_s)
        elif piece.total != missing.size:
            said = f"says it has {piece.total} bytes, the plan says {missing.size}"
            self._cannot(peer, missing, said, now_s)
        elif len(piece.data) != expected:
            sent = f"sent {len(piece.data)} bytes where {expected} were due"
            self._cannot(peer, missing, sent, now_s)
        else:
            self._keep(peer, missing, piece.data, now_s)

    def tick(self, peers: Collection[Peer], now_s: float) -> float:
        """Time passed: ask whom is to be asked; return when there is more to do."""
        if not self._missing:
            return _NEVER_S
        asked = self._asked
        if asked is not None and asked.peer in peers and now_s < asked.until_s:
            return asked.until_s
        if asked is not None and asked.peer in peers:
            silent = f"silent for {ANSWER_S:g} s"
            self._cannot(asked.peer, self._missing[asked.want.sha256], silent, now_s)
        self._asked = None
        for missing in self._missing.values():
            for peer in self._able(peers, missing, now_s):
                want = Want(missing.sha256, missing.length)
                if self._ask(peer, want):
                    self._asked = _Asked(peer, want, now_s + ANSWER_S)
                    return self._asked.until_s
        self._tell(peers)
        return now_s + AGAIN_S

    def _lacking(
        self, needed: Mapping[str, list[Path]], sizes: Mapping[str, int]
    ) -> dict[str, _Missing]:
        lacking: dict[str, _Missing] = {}
        for sha256, paths in needed.items():
            targets = [path for path in paths if not path.exists()]
            if not targets or sha256 in self._missing:
                continue
            try:
                for path in targets:
                    path.parent.mkdir(parents=True, exist_ok=True)
                partial = targets[0].with_name(f"{sha256}.onnx.partial-{self._device}")
                missing = _Missing(sha256, sizes[sha256], partial, tuple(targets))
                elsewhere = [p for p in self._files[sha256] if p.exists()]
                if elsewhere:  # another of our plans has it
                    shutil.copyfile(elsewhere[0], partial)
                    missing.name()
                    continue
            except OSError as error:
                raise _unwritable(targets[0], error) from None
            missing.resume()
            lacking[sha256] = missing
        return lacking

    def _able(
        self, peers: Collection[Peer], missing: _Missing, now_s: float
    ) -> list[Peer]:
        """Return whom to ask for a segment, who gave of it already first."""
        able = [
            peer
            for peer in peers
            if self._unable_s.get((peer, missing.sha256), 0.0) <= now_s
        ]
        return sorted(able, key=lambda peer: peer not in missing.givers)

    def _keep(self, peer: Peer, missing: _Missing, data: bytes, now_s: float) -> None:
        if peer not in missing.givers:
            self._events.write(
                "segment.fetching",
                sha256=missing.sha256,
                peer=peer.name,
                offset=missing.length,
                bytes=missing.size,
            )
            missing.givers.add(peer)
        try:
            missing.append(data)
            if missing.length < missing.size:
                return
            if missing.digest.hexdigest() == missing.sha256:
                missing.name()
            else:
                self._is_wrong(peer, missing, now_s)
                return
        except OSError as error:
            raise _unwritable(missing.partial, error) from None
        del self._missing[missing.sha256]
        self._events.write("segment.fetched", sha256=missing.sha256, bytes=missing.size)

    def _is_wrong(self, peer: Peer, missing: _Missing, now_s: float) -> None:
        """The whole has another hash. Who gave all of it is not asked again soon."""
        wrong = missing.digest.hexdigest()
        if missing.givers == {peer}:
            self._cannot(peer, missing, f"gave content of SHA-256 {wrong}", now_s)
        missing.start_again()

    def _cannot(self, peer: Peer, missing: _Missing, why: str, now_s: float) -> None:
        self._unable_s[peer, missing.sha256] = now_s + AGAIN_S
        self._events.write(
            "segment.refused", sha256=missing.sha256, peer=peer.name, why=why
        )

    def _tell(self, peers: Collection[Peer]) -> None:
        """Say, once, that nobody here can give what is missing."""
        names = sorted(peer.name for peer in peers)
        if self._told != (told := (self.missing, names)):
            self._told = told
            self._events.write("segment.missing", segments=self.missing, peers=names)


def _unwritable(path: Path, error: OSError) -> UnderstudyError:
    return UnderstudyError(
        f"{path}: cannot be written ({error.strerror}); make room, or let this user "
        "write to the plan's folder"
    )
