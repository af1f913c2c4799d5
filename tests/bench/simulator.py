"""Simulated runs per second on one core, beside what the state machines alone take.

Rounds of the same seeds in turn: runs of 100 frames of one stream over two servers,
with faults and without, and the bare calls of ledger, link and sessions that such a
frame needs, which no simulator over them can undercut. CPU time of this process. Run

    python tests/bench/simulator.py [--json FILE]
    python -m tests.compiled tests/bench/simulator.py [--json FILE]

The first interprets simulator and machines, the second has both compiled by mypyc: the
same code does the same, `tests/test_compiled.py` holds it to that.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence

from dataflow.turns import ALONE
from dataflow.wire.control import StreamOffer
from dataflow.wire.header import Header, Kind, microseconds
from dataflow.wire.iterations import Settle, Start
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.link_states import Send as ToServer
from dataflow.wire.service_time import ServiceTime
from dataflow.wire.session import Accept
from dataflow.wire.session import Send as ToEndpoint
from dataflow.wire.sessions import Sessions
from tests.bench.common import Figure, arguments, conditions, show, write
from understudy.simulation import simulation
from understudy.simulation.scenario import drawn
from understudy.simulation.setup import Setup
from understudy.simulation.simulation import simulate

FRAMES = 100
RUNS = 40
ROUNDS = 15
WANTED_PER_S = 1000
ROUTE, LANE = b"12345678C", b"12345678D"


def simulated(faults: Sequence[str] | None) -> int:
    """Simulate `RUNS` seeds; return how many frames were answered or dropped."""
    frames = 0
    for seed in range(1, 1 + RUNS):
        # Each fifth seed draws two streams.
        drawn_by = seed + (seed % 5 == 0)
        scenario = drawn(
            drawn_by, endpoints=1, servers=2, chained=False, batching=ALONE
        )
        result = simulate(Setup(seed, scenario, frames=FRAMES, faults=faults))
        frames += sum(len(record.results) for record in result.run.streams)
    return frames


class Remote:
    """A branch over a link, as the choice of a row sees it."""

    local = False
    grade = outstanding = 0
    carried = True

    def __init__(self, link: Link) -> None:
        self.link = link
        self.service = ServiceTime()

    @property
    def ready(self) -> bool:
        return self.link.takes(1)

    def p90_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.90, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)

    def learned_s(self, fraction: float) -> float:
        return self.service.learned_s(fraction)


def connected() -> tuple[Link, Sessions]:
    """Return both ends of a link that is ready."""
    offer = StreamOffer(stream=1, name="cam", segment=7, window=4)
    link = Link("edge", device="cam", incarnation=1, offers=(offer,), now_s=0.0)
    sessions = Sessions("edge", incarnation=2, token_bytes={7: [100]})
    sessions.load_done(0.0)
    link.tick(0.0, wanted=False, about=str)
    link.lane_open("control", 0.0)
    for hello in link.lane_open("data", 0.0):
        assert isinstance(hello, ToServer)
        for welcome in sessions.control(ROUTE, hello.message, 0.0):
            if isinstance(welcome, ToEndpoint):
                link.control(welcome.message, 0.0)
    while not link.ready:
        link.probed(1, 0.0)
    return link, sessions


def machines() -> int:
    """Make the machines' calls of a frame that one server answers, `RUNS` times."""
    link, sessions = connected()
    branch = Remote(link)
    ledger = Ledger([branch], window=4, deadline_s=0.3)
    now_s = 0.0
    for _ in range(RUNS * FRAMES):
        now_s += 0.01
        number, _, _ = ledger.fire(now_s)
        (start,) = ledger.forked(number, now_s)
        assert isinstance(start, Start)
        token = Header(
            Kind.TOKEN,
            session=1,
            stream=1,
            attempt=start.attempt,
            tensors=1,
            incarnation=1,
            segment=7,
            frame=number,
            ordinal=link.take_ordinal(1),
            budget_us=microseconds(start.budget_s),
            payload_bytes=100,
        )
        (accept,) = sessions.data(LANE, token, [100], now_s)
        assert isinstance(accept, Accept)
        limit = sessions.answered(accept.session, token)
        answer = token.answer(Kind.ANSWER, limit=limit)
        link.raise_limit(1, answer.limit)
        branch.service.add(0.003, now_s)
        (settle,) = ledger.answer(answer.frame, answer.attempt, None, now_s)
        assert isinstance(settle, Settle)
    return RUNS * FRAMES


def measure(call: Callable[[], int]) -> tuple[float, float]:
    """Return the CPU seconds of `call`, and those of a frame."""
    start_s = time.process_time()
    frames = call()
    took_s = time.process_time() - start_s
    return took_s, took_s / frames


def main() -> int:
    options = arguments(__doc__).parse_args()
    print(conditions("this process"))
    calls: dict[str, Callable[[], int]] = {
        "with faults": lambda: simulated(None),
        "without faults": lambda: simulated(()),
        "machines alone": machines,
    }
    rounds = [
        {name: measure(call) for name, call in calls.items()} for _ in range(ROUNDS)
    ]
    figures = []
    for name in calls:
        run_s = statistics.median(round_[name][0] for round_ in rounds) / RUNS
        frame_s = statistics.median(round_[name][1] for round_ in rounds)
        figures += [
            Figure(f"{name}: runs/s", 1 / run_s),
            Figure(f"{name}: a frame", frame_s * 1e6, "us"),
        ]
    how = "interpreted" if simulation.__file__.endswith(".py") else "compiled"
    title = f"Runs of {FRAMES} frames, one stream, two servers, {how}"
    show(title, figures)
    reached = figures[0].value / WANTED_PER_S
    print(f"\n{reached:.2f} of the {WANTED_PER_S} runs/s wanted")
    write(options.json, {title: figures})
    return 0 if reached >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
