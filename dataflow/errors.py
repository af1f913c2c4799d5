"""What can be wrong, and whose fault it is.

Every message reads ``where: what is wrong, with the values; what to do``. The command
line prints the message alone and ends with the status of the class.
"""

import difflib
from collections.abc import Iterable


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
    """What came over a link is not what the protocol allows. Never our misuse."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest of `names`, or "" if none is close.

    >>> nearest("detct", ["detect", "camera"])
    "; did you mean 'detect'?"
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
