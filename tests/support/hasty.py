"""A planted fault: an older plan is dropped at the switch, not when it is settled.

A source of this module brings it into its device; everything else is as it should be.
"""

from dataflow.stream import Stream
from tests.support import toy_actors


class Counter(toy_actors.Counter):
    """Counts, in a device that forgets the plan before."""


def _has_been_followed(stream: Stream) -> bool:
    return not stream._fires


Stream.drained = property(_has_been_followed)  # type: ignore[assignment,method-assign]
