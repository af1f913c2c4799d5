"""The schedule of a campaign: reproducible, fair, and never two on one thing."""

import itertools
from pathlib import Path

import pytest

from dataflow.errors import MisuseError
from dataflow.plan import Plan
from tests.support.toy_plan import toy_plan
from understudy.chaos_schedule import KINDS, WARM_S, Strike, known_kinds, schedule

SEEDS = range(20)
LONG_S = 600.0


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return toy_plan(tmp_path, port=7000, endpoints=2, servers=2)


def drawn(plan: Plan, seed: int, *kinds: str, seconds: float = LONG_S) -> list[Strike]:
    return schedule(plan, seed=seed, seconds=seconds, kinds=kinds or tuple(KINDS))


def test_same_seed_gives_the_same_faults_and_another_seed_others(plan: Plan) -> None:
    assert drawn(plan, 7) == drawn(plan, 7)
    assert drawn(plan, 7) != drawn(plan, 8)


def test_longer_campaign_begins_as_the_shorter_one(plan: Plan) -> None:
    short = drawn(plan, 3, seconds=100)
    longer = drawn(plan, 3, seconds=200)[: len(short)]
    assert short[:-1] == longer[:-1]  # the last one may have had company


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_comes_once_before_any_comes_again(plan: Plan, seed: int) -> None:
    kinds = [strike.kind for strike in drawn(plan, seed, "cut", "kill", "freeze")]
    assert {*kinds[:3]} == {*kinds[3:6]} == {"cut", "kill", "freeze"}


@pytest.mark.parametrize("seed", SEEDS)
def test_all_is_mended_in_time_and_nothing_is_done_before_the_warm_up(
    plan: Plan, seed: int
) -> None:
    strikes = drawn(plan, seed, seconds=60)
    assert min(strike.at_s for strike in strikes) >= WARM_S
    assert max(strike.end_s for strike in strikes) <= 60


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_struck_while_an_end_of_it_is_broken(plan: Plan, seed: int) -> None:
    for one, other in itertools.combinations(drawn(plan, seed), 2):
        if one.at_s <= other.end_s and other.at_s <= one.end_s:
            ends = {one.target, one.dialler} & {other.target, other.dialler} - {""}
            both_links = one.dialler and other.dialler
            same = (one.dialler, one.target) == (other.dialler, other.target)
            assert not (same if both_links else ends), (one, other)
            assert not one.alone
            assert not other.alone


def test_some_faults_meet_and_most_are_alone(plan: Plan) -> None:
    strikes = drawn(plan, 1)
    alone = sum(strike.alone for strike in strikes)
    assert len(strikes) / 2 < alone < len(strikes)


def test_devices_are_struck_by_their_role_and_links_by_their_ends(plan: Plan) -> None:
    for strike in drawn(plan, 5):
        target = plan.devices[strike.target].role
        if KINDS[strike.kind].strikes == "link":
            assert (plan.devices[strike.dialler].role, target) == ("endpoint", "server")
        else:
            assert (strike.dialler, target) == ("", KINDS[strike.kind].strikes)


def test_what_serves_is_struck_most(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, port=7000, endpoints=1, servers=2)
    struck = [strike.target for strike in drawn(plan, 1, "kill") if strike.alone]
    assert struck.count("edge.0") > 2 * struck.count("edge.1") > 0


def test_campaign_too_short_for_its_faults_is_misuse(plan: Plan) -> None:
    with pytest.raises(MisuseError, match=r"5 s: too short for a fault of zombie"):
        drawn(plan, 1, "zombie", seconds=5)


def test_unknown_fault_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(MisuseError, match=r"fault 'kil': unknown .did you mean 'kill'"):
        known_kinds(["cut", "kil"])
    assert known_kinds([]) == list(KINDS)
