"""What can be wrong, and whose fault it is.

Every message reads ``where: what is wrong, with the values; what to do``. The command
line prints the message alone and ends with the status of the class.
"""

import difflib
from collections.abc import Iterable, Mapping


class UnderstudyError(Exception):
    """Something a user, a file or a peer did that we cannot go on with.

    Attributes:
        status: Exit status of a command that ends with this error.
    """

    status = 1


class MisuseError(UnderstudyError):
    """The command was called wrongly: no such file, no such device, bad option."""

    status = 2


class ActorError(UnderstudyError):
    """An actor's own code raised, or broke its declared ports or rates."""


class PeerError(UnderstudyError):
    """What came over a link is not what the protocol allows. Never our misuse.

    Attributes:
        reason: One of `REJECTIONS`: what counters call it.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        assert reason in REJECTIONS, reason
        self.reason = reason


REJECTIONS: Mapping[str, str] = {
    "frames": "more frames than any message has",
    "size": "a header or control message of a size that none has",
    "magic": "neither a header nor a control message of ours begins so",
    "version": "a control message of another version of the protocol",
    "kind": "an unknown kind of message, or one that goes the other way",
    "encoding": "a control message that is not msgpack within its bounds",
    "field": "a field of a control message is missing, of another type or too large",
    "key": "a device names itself as one whose key it does not have",
    "compression": "a compressed tensor that does not stand for its token",
    "actor": "an actor raised on the tensors of a token",
    "flood": "more messages that nobody asked for than a peer is allowed",
    "segment": "a session is asked for a segment that is not here: another plan",
    "room": "a session is asked for beyond the most sessions or bytes of credit",
    "session": "of a session that is over, or never was",
    "stream": "an answer for a stream, or a life of one, that is not ours",
    "attempt": "an answer from a peer that was not asked",
    "answer": "an answer whose tensors have other sizes than the branch gives",
}
"""Why a message was thrown away -> what that means. The whole vocabulary: it bounds the
counters, whatever a peer sends."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest of `names`, "" if none is close.

    In brackets, so that a message can go on behind it.

    >>> nearest("detct", ["detect", "camera"])
    " (did you mean 'detect'?)"
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
