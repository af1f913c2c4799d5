"""What an early exit takes on the endpoint, where nobody says it.

Exit and network are timed here, one after the other, on one thread; the exit takes the
same share of the network's time on the endpoint as it does here.
"""

from functools import partial

from actors.trial import open_session, run
from graphs.actor_types import is_model
from graphs.split import Segment
from understudy.explore_subject import Subject
from understudy.model_input import natural
from understudy.profile_file import Profile
from understudy.timing import in_turn

TRIALS = 10
"""Of each, the quickest counts; the first ones touch memory for the first time."""


def exit_ms(subject: Subject, profile: Profile) -> float:
    """Return ms of a frame's early answer on the device of `profile`.

    The gate is left out: it looks at a few numbers.
    """
    assert subject.graph is not None
    models = subject.graph.models
    parts = [models.of(subject.graph.graph.actors[subject.actor].params)]
    for early in subject.graph.exits.values():
        actor = subject.graph.graph.actors[early.answer.actor]
        if is_model(actor):
            parts.append(models.of(actor.params))
    network_ms, *others_ms = _times_ms([part.segment(part.outputs) for part in parts])
    return sum(others_ms) / network_ms * profile.whole.min_ms


def _times_ms(segments: list[Segment]) -> list[float]:
    tried = [
        (open_session(segment.data, optimised=True), natural(segment.inputs))
        for segment in segments
    ]
    calls = [partial(run, session, given) for session, given in tried]
    found = in_turn(calls, TRIALS)
    return [min(took.wall_s for took in each) * 1e3 for each in found]
