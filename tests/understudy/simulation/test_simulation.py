"""The protocol under thousands of seeded runs: every promise is kept in each."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from dataflow.redundancy import Redundancy
from dataflow.turns import ALONE, Batching
from understudy.promise import judge
from understudy.simulation.faults import FAULTS
from understudy.simulation.scenario import drawn
from understudy.simulation.seeds import Origin
from understudy.simulation.setup import Result, Setup, Violation
from understudy.simulation.simulation import Simulation, simulate

MODES = [
    Redundancy.parse(text)
    for text in ("spread", "replicate 2", "replicate 3", "hedge p50", "hedge p95")
]
SEEDS = 2000
FRAMES = 40
"""So that the default suite has these seeds done in about five seconds."""


DRAWN = Origin((), lambda seed: Setup(seed, drawn(seed), frames=FRAMES))


def _run(seeds: Iterable[int], faults: tuple[str, ...] | None = None) -> None:
    for seed in seeds:
        setup = Setup(seed, drawn(seed), frames=FRAMES, faults=faults)
        try:
            simulate(setup)
        except Violation as violation:
            violation.add_note(f"to see it again: {DRAWN.command(setup)}")
            raise


def _ways(result: Result) -> set[tuple[str, str]]:
    """Status and reason of each outcome."""
    return {
        (outcome.status, outcome.reason)
        for record in result.run.streams
        for outcome in record.results
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 500))
def test_every_promise_is_kept_whatever_fails(first: int) -> None:
    _run(range(first, first + 500))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + 20_000, 2500))
def test_every_promise_is_kept_in_twenty_thousand_runs(first: int) -> None:
    _run(range(first, first + 2500))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_promise_is_kept_when_one_thing_fails(fault: str) -> None:
    _run(range(15), (fault,))


def test_same_seed_gives_the_same_outcomes_to_the_last_digit() -> None:
    setup = Setup(5, drawn(5, endpoints=2, servers=2))
    first, again = simulate(setup), simulate(setup)
    assert first.run.streams == again.run.streams
    assert (first.events, first.seconds) == (again.events, again.seconds)
    assert simulate(Setup(6, drawn(6))).run.streams != first.run.streams


def test_without_faults_every_frame_is_answered_in_full() -> None:
    for seed in range(20):
        scenario = drawn(seed, local=True, chained=False)
        result = simulate(Setup(seed, scenario, faults=()))
        # A stream may end within an iteration of several frames.
        assert _ways(result) - {("dropped", "end")} == {("full", "")}


def test_each_fault_leaves_a_mark_on_some_run() -> None:
    # Some are healed without a trace in the outcomes; none may be without effect.
    for fault in FAULTS:
        seeds = range(3, 12)
        calm = [simulate(Setup(s, drawn(s), faults=())).events for s in seeds]
        hit = [simulate(Setup(s, drawn(s), faults=(fault,))).events for s in seeds]
        assert calm != hit, fault


def test_leaving_a_fault_out_leaves_the_others_as_they_were() -> None:
    setup = Setup(11, drawn(11))
    every = simulate(setup)
    assert every.planned == len(every.faults) > 1
    last = every.planned - 1
    only = simulate(Setup(11, drawn(11), kept=frozenset({last})))
    assert list(only.faults) == [every.faults[last]]
    assert only.planned == every.planned


def test_a_killed_source_begins_again_from_frame_0_in_a_stream_of_its_own() -> None:
    result = simulate(Setup(3, drawn(3), faults=("rebirth",)))
    lives = [r for r in result.run.streams if r.stream == "cam.0/1"]
    assert len(lives) > 1
    assert len({life.incarnation for life in lives}) == len(lives)
    assert all(life.results[0].frame == 0 for life in lives if life.results)
    assert [bool(life.ended) for life in lives] == [False] * (len(lives) - 1) + [True]


def test_the_log_alone_proves_the_promise_and_shows_what_breaks_it() -> None:
    run = simulate(Setup(4, drawn(4))).run
    assert judge(run).kept
    record = run.streams[0]
    without = record.results[:7] + record.results[8:]
    broken = type(run)(
        Path("broken"),
        (type(record)(**{**_fields(record), "results": without}),),
        run.devices,
        run.launcher,
        None,
    )
    (violation,) = judge(broken).violations
    assert "frame 7 unaccounted for" in violation


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


def test_an_outcome_covers_all_frames_of_its_iteration() -> None:
    record = simulate(Setup(7, drawn(7), faults=("cut",))).run.streams[0]
    counts = [outcome.frames for outcome in record.results]
    assert set(counts[:-1]) == {3}
    assert counts[-1] in (1, 2, 3)
    assert record.ended[0].last == record.results[-1].last


def test_what_a_gate_is_sure_of_starts_no_branch() -> None:
    result = simulate(Setup(6, drawn(6)))
    outcomes = [o for record in result.run.streams for o in record.results]
    outside = [o for o in outcomes if o.row == "exit"]
    assert outside
    assert {(o.status, o.attempts) for o in outside} == {("full", 0)}
    assert any(o.attempts for o in outcomes)


@pytest.mark.parametrize("redundancy", MODES, ids=str)
def test_every_promise_is_kept_in_every_mode_of_redundancy(
    redundancy: Redundancy,
) -> None:
    for seed in range(60):
        scenario = drawn(seed, redundancy=redundancy)
        simulate(Setup(seed, scenario, frames=FRAMES))


def _two_servers(redundancy: Redundancy, seed: int = 3) -> Simulation:
    scenario = drawn(
        seed, endpoints=1, servers=2, local=False, redundancy=redundancy, chained=False
    )
    return Simulation(Setup(seed, scenario, frames=300, faults=()))


def _served(result: Result) -> Counter[str]:
    return Counter(o.row for record in result.run.streams for o in record.results)


@pytest.mark.parametrize("redundancy", [Redundancy(), *MODES], ids=str)
def test_who_is_asked_of_two_servers_without_faults(redundancy: Redundancy) -> None:
    """The first alone, each in turn, both, or the second once in a while."""
    result = _two_servers(redundancy, seed=4).run()
    served = _served(result)
    asked = result.attempts / served.total()
    assert served.keys() <= {"edge.0", "edge.1"}
    match redundancy.mode:
        case "standby":
            assert (asked, len(served)) == (1, 1)
        case "spread":
            assert asked == 1
            assert 0.4 < served["edge.0"] / served.total() < 0.6
        case "replicate":
            assert asked == 2
        case "hedge":
            assert 1 < asked <= 1.05 + redundancy.hedged_share


def test_a_chain_of_three_servers_is_gone_through_or_around() -> None:
    """Its relays tell what they have lost; without faults the longest way serves."""

    def served(faults: tuple[str, ...]) -> Counter[str]:
        scenario = drawn(4, endpoints=1, servers=3, local=True, chained=True)
        return _served(simulate(Setup(4, scenario, frames=300, faults=faults)))

    assert served(()).keys() == {"edge.0+edge.1+edge.2"}
    assert served(("crash",)).keys() > {"edge.0+edge.1+edge.2", "edge.0+edge.2"}


def test_tokens_of_several_endpoints_are_fired_as_one() -> None:
    def events(batching: Batching) -> int:
        scenario = drawn(3, endpoints=6, servers=1, chained=False, batching=batching)
        return simulate(Setup(3, scenario, frames=100, faults=())).events

    # An event less for each token that shares a firing.
    assert events(Batching(4, 0.005)) < events(Batching(2, 0.0)) < events(ALONE)


def test_spread_asks_less_of_a_server_that_is_slow() -> None:
    simulation = _two_servers(Redundancy("spread"))
    simulation.servers[0].slowness = 20.0
    served = _served(simulation.run())
    assert 0 < 2 * served["edge.0"] < served["edge.1"]


@pytest.mark.parametrize("redundancy", MODES[1:], ids=str)
def test_frames_that_a_hung_server_holds_are_answered_before_it_is_suspected(
    redundancy: Redundancy,
) -> None:
    """Its heartbeats go on, and 150 ms is less than four missed beats."""

    def slowest_s(mode: Redundancy) -> float:
        simulation = _two_servers(mode)
        (stream,) = simulation.streams
        name = stream.branches[0].row.name
        (hung,) = (s for s in simulation.servers if s.name == name)
        simulation.at(3.0, hung.trouble)
        simulation.at(3.0, hung.pause)
        simulation.at(3.15, hung.thaw)
        (record,) = simulation.run().run.streams
        return max(o.settled_s - o.fired_s for o in record.results)

    assert slowest_s(redundancy) < 0.06
    assert slowest_s(Redundancy()) > 0.12


def test_idle_beats_are_jumped_over() -> None:
    # A beat a link, side and 50 ms would be 2 x 4 x 20 events in each second.
    setup = Setup(1, drawn(1, endpoints=2, servers=2), frames=500, faults=())
    result = simulate(setup)
    frames = sum(len(record.results) for record in result.run.streams)
    assert result.events < 6 * frames + 300


def test_cost_is_linear_in_the_number_of_endpoints() -> None:
    def events(endpoints: int) -> float:
        scenario = drawn(1, endpoints=endpoints, servers=4)
        setup = Setup(1, scenario, frames=5, faults=("crash",))
        return simulate(setup).events / endpoints

    # Eight times as many; what is quadratic would cost each eight times as much.
    assert events(400) < 2 * events(50)


@pytest.mark.slow
def test_two_thousand_endpoints_and_eight_servers_are_simulated() -> None:
    scenario = drawn(1, endpoints=2000, servers=8)
    result = simulate(Setup(1, scenario, frames=20))
    assert len(result.run.streams) >= 2000


def test_clocks_of_devices_disagree_in_time_and_pace() -> None:
    simulation = Simulation(Setup(2, drawn(2)))
    devices = [*simulation.endpoints, *simulation.servers]
    assert len({device.start_s for device in devices}) == len(devices)
    assert len({device.pace for device in devices}) == len(devices)
