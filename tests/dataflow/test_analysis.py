"""Known answers: published SDF graphs, and cases computed by hand or brute force.

Repetition vectors and buffer minima of the modem, the sample-rate converter, the H.263
decoder and the satellite receiver are those of the SDF3 tool for the same graphs.
"""

import random
from dataclasses import replace
from fractions import Fraction
from math import gcd, lcm

import pytest

from dataflow.analysis import (
    CapacityError,
    DeadlockError,
    RateError,
    capacities,
    least_capacity,
    parts,
    repetition_vector,
    schedule,
)
from dataflow.graph import Graph
from dataflow.rules import check

TUTORIAL = "a 2->3 b; b 1->2 c"
SAMPLERATE = "a 1->1 b; b 2->3 c; c 2->7 d; d 8->7 e; e 5->1 f"
H263 = "vld 594->1 iq; iq 1->1 idct; idct 1->594 mc"
MODEM = """
    fork1 1->1 biq; fork1 1->1 bi; biq 1->1 add; bi 1->1 add; add 1->1 ac
    ac 2->1 fork2; fork2 1->2 conj; fork2 1->2 mul1; conj 2->2 mul2; mul1 2->2 deci
    mul2 2->2 eq d2; in 1->1 filt; filt 1->8 hil; hil 2->4 eq; eq 2->2 mul1
    deci 2->2 mul2; deci 2->2 deco; deco 1->1 out; deci 1->1 fork1 d1
"""
SATELLITE = """
    a 1->4 b; b 1->11 c; c 1->1 g; c 10->1 p; d 1->4 e; e 1->11 f; f 1->1 k
    f 10->1 p; g 1->1 h; h 11->11 i; i 10->1 j; k 1->1 l; l 11->11 m; m 10->1 n
    p 1->240 q; p 1->240 r; q 240->1 w; r 240->1 w; n 1->1 p; n 1->1 s; s 1->1 u
    j 1->1 p; j 1->1 t; t 1->1 u; u 1->240 v; v 240->1 w
"""
PREESM = """
    Z 1->1 A; A 2->3 B; B 3->2 A d6; B 3->2 C; C 1->1 A d{d}; C 1->1 D
"""
RING = "t1 1->1 t2; t2 8->6 t3; t3 6->8 t1 d{d}"


def with_selves(text: str) -> str:
    """Add one FIFO with one token from each actor to itself."""
    names = dict.fromkeys(w for w in text.replace(";", " ").split() if w[0].isalpha())
    actors = [n for n in names if not (n[0] == "d" and n[1:].isdigit())]
    return text + ";" + ";".join(f"{name} 1->1 {name} d1" for name in actors)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (TUTORIAL, {"a": 3, "b": 2, "c": 1}),
        (SAMPLERATE, {"a": 147, "b": 147, "c": 98, "d": 28, "e": 32, "f": 160}),
        (H263, {"vld": 1, "iq": 594, "idct": 594, "mc": 1}),
        (PREESM.format(d=1), {"Z": 3, "A": 3, "B": 2, "C": 3, "D": 3}),
        ("A 2->3 B; B 3->2 A", {"A": 3, "B": 2}),
        (RING.format(d=20), {"t1": 3, "t2": 3, "t3": 4}),
        ("A 1->4 B; B 4->1 D; A 1->1 D", {"A": 4, "B": 1, "D": 4}),
    ],
)
def test_repetition_vectors_of_published_graphs(sdf, text, counts):
    assert repetition_vector(sdf(text)) == counts


def test_repetition_vector_of_the_modem(sdf):
    counts = repetition_vector(sdf(with_selves(MODEM)))
    assert sum(counts.values()) == 48
    assert {n: c for n, c in counts.items() if c > 1} == {
        "in": 16,
        "filt": 16,
        "hil": 2,
        "fork2": 2,
    }


def test_repetition_vector_of_the_satellite_receiver(sdf):
    counts = repetition_vector(sdf(with_selves(SATELLITE)))
    assert sum(counts.values()) == 4515
    assert (counts["a"], counts["e"], counts["m"], counts["w"]) == (1056, 264, 24, 240)
    assert [n for n, c in counts.items() if c == 1] == ["q", "r", "v"]


@pytest.mark.parametrize("text", [TUTORIAL, SAMPLERATE, H263, MODEM, SATELLITE])
def test_published_graphs_are_live(sdf, text):
    graph = sdf(with_selves(text))
    fired: dict[str, int] = {}
    found = schedule(graph)
    for actor, count in found.firings:
        fired[actor] = fired.get(actor, 0) + count
    assert fired == repetition_vector(graph)


@pytest.mark.parametrize(
    ("text", "total"),
    [(TUTORIAL, 6), (SAMPLERATE, 32), (H263, 1189), (MODEM, 38), (SATELLITE, 1542)],
)
def test_proposed_capacities_meet_the_published_minimum(sdf, text, total):
    assert sum(capacities(sdf(text)).values()) == total


def test_repetition_vector_is_the_smallest_of_each_component(sdf):
    counts = repetition_vector(sdf("a 4->2 b; x 3->6 y"))
    assert counts == {"a": 1, "b": 2, "x": 2, "y": 1}


def test_contradiction_names_the_fifo_and_both_ratios(sdf):
    with pytest.raises(RateError) as caught:
        repetition_vector(sdf("A 1->1 B; B 2->1 C; A 1->1 C"))
    error = caught.value
    assert str(error.fifo) == "A.o2 -> C.i2"
    assert error.path == ("A", "B", "C")
    assert (error.wanted, error.implied) == (Fraction(1), Fraction(2))
    assert str(error) == (
        "fifo A.o2 -> C.i2: asks for 1 firing of C per firing of A, but the path "
        "A -> B -> C gives 2; change a rate on that cycle"
    )


def test_self_loop_with_two_rates_is_a_contradiction(sdf):
    with pytest.raises(RateError, match="but an actor gives 1"):
        repetition_vector(sdf("A 2->3 A"))


def test_one_sided_zero_rate_is_a_contradiction(sdf):
    with pytest.raises(RateError, match="one of its rates is 0"):
        repetition_vector(sdf("A 0->1 B"))


def test_fifos_of_rate_zero_do_not_connect(sdf):
    counts = repetition_vector(sdf("A 2->1 B; B 0->0 C; C 1->3 D"))
    assert counts == {"A": 1, "B": 2, "C": 3, "D": 1}


def test_preesm_graph_needs_one_more_token_behind_c(sdf):
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf(PREESM.format(d=1)))
    extra = {str(fifo): tokens for fifo, tokens in caught.value.extra.items()}
    assert extra == {"C.o4 -> A.i4": 1}
    assert caught.value.exact
    assert set(caught.value.blocked) == {"A", "B", "C", "D"}
    schedule(sdf(PREESM.format(d=2)))


@pytest.mark.parametrize("delay", range(4))
def test_cycle_of_two_and_three_needs_four_tokens(sdf, delay):
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf(f"A 2->3 B; B 3->2 A d{delay}"))
    assert list(caught.value.extra.values()) == [4 - delay]
    schedule(sdf("A 2->3 B; B 3->2 A d4"))


def test_cycle_without_initial_tokens_deadlocks(sdf):
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf("A 1->1 B; B 1->1 A; B 1->1 C"))
    error = caught.value
    assert {s.port.actor for s in error.cycle} == {"A", "B"}
    assert set(error.blocked) == {"A", "B", "C"}
    (starved,) = error.blocked["C"]
    assert (str(starved.port), starved.has, starved.needs) == ("C.i2", 0, 1)
    schedule(sdf("A 1->1 B; B 1->1 A d1; B 1->1 C"))


def test_ring_of_the_expansion_paper_needs_twelve_tokens(sdf):
    with pytest.raises(DeadlockError):
        schedule(sdf(RING.format(d=11)))
    schedule(sdf(RING.format(d=12)))


def test_two_separate_cycles_need_a_token_each(sdf):
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf("a 1->1 b; b 1->1 a; b 1->1 c; c 1->1 d; d 1->1 c"))
    assert sorted(caught.value.extra.values()) == [1, 1]
    assert caught.value.exact
    assert "which is the least" in caught.value.fix


def test_one_fifo_shared_by_two_cycles_is_the_least_fix(sdf):
    """Two tokens elsewhere would do as well; one FIFO is fewer."""
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf("a 1->1 b; b 1->1 c; c 1->1 a; b 1->1 d; d 1->1 a"))
    assert {str(f) for f in caught.value.extra} == {"a.o0 -> b.i0"}


def test_many_separate_cycles_get_one_token_each(sdf):
    pairs = [f"a{i} 1->1 b{i}; b{i} 1->1 a{i}; h 1->1 a{i}" for i in range(40)]
    with pytest.raises(DeadlockError) as caught:
        schedule(sdf(";".join(pairs)))
    assert list(caught.value.extra.values()) == [1] * 40
    assert caught.value.exact


def test_entangled_cycles_get_a_fix_that_works_and_is_not_called_least(sdf):
    pairs = [f"a{i} 1->1 a{j}" for i in range(12) for j in range(12) if i != j]
    graph = sdf(";".join(pairs))
    with pytest.raises(DeadlockError) as caught:
        schedule(graph)
    extra = caught.value.extra
    assert not caught.value.exact
    assert "less may do elsewhere" in caught.value.fix
    for less in (0, 1):
        some = dict(list(extra.items())[less:])
        given = [replace(f, delay=some.get(f, 0)) for f in graph.fifos]
        mended = replace(graph, fifos=tuple(given))
        assert bool(check(mended)) == bool(less)


def live_with(produced: int, consumed: int, delay: int, capacity: int) -> bool:
    """Two actors, executed one firing at a time."""
    left = [consumed // gcd(produced, consumed), produced // gcd(produced, consumed)]
    tokens = delay
    while any(left):
        if left[1] and tokens >= consumed:
            tokens -= consumed
            left[1] -= 1
        elif left[0] and tokens + produced <= capacity:
            tokens += produced
            left[0] -= 1
        else:
            return False
    return True


def test_least_capacity_formula_agrees_with_brute_force():
    for produced in range(1, 7):
        for consumed in range(1, 7):
            for delay in range(10):
                least = least_capacity(produced, consumed, delay)
                assert live_with(produced, consumed, delay, least)
                if least > delay:
                    assert not live_with(produced, consumed, delay, least - 1)


def test_skip_connection_gets_the_four_places_it_needs(sdf):
    """One place suffices for its two actors alone, but not for the whole graph."""
    skip = sdf("A 1->4 B; B 4->1 D; A 1->1 D")
    assert list(capacities(skip).values()) == [4, 4, 4]


@pytest.mark.parametrize("declared", [1, 2, 3])
def test_declared_capacity_of_a_skip_connection_below_four_is_refused(sdf, declared):
    graph = sdf(f"A 1->4 B cap4; B 4->1 D cap4; A 1->1 D cap{declared}")
    with pytest.raises(CapacityError) as caught:
        capacities(graph)
    assert caught.value.raises == {graph.fifos[2]: 4}
    assert "raise the capacity of fifo A.o2 -> D.i2 to 4" in str(caught.value)


def test_undeclared_capacities_grow_before_declared_ones(sdf):
    graph = sdf("A 1->1 B cap1; B 1->2 C; A 1->2 C cap2")
    assert list(capacities(graph).values()) == [1, 2, 2]


def test_capacity_below_the_initial_tokens_is_refused(sdf):
    with pytest.raises(CapacityError, match="to 3"):
        capacities(sdf("A 1->1 B d3 cap2"))


def test_schedule_stays_within_capacities(sdf):
    graph = sdf(SAMPLERATE)
    sized = capacities(graph)
    peaks = schedule(graph, capacities=sized).peaks
    assert all(peaks[fifo] <= sized[fifo] for fifo in graph.fifos)


def test_deadlock_in_unbounded_fifos_is_not_blamed_on_capacities(sdf):
    with pytest.raises(DeadlockError) as caught:
        capacities(sdf("A 1->1 B; B 1->1 A; A 1->4 C; C 4->1 D; A 1->1 D"))
    assert len(caught.value.extra) == 1


def test_streams_are_parts_of_their_own(sdf):
    graph = sdf("a 1->1 b; c 1->1 d; b 1->1 e")
    assert [set(part.actors) for part in parts(graph)] == [{"a", "b", "e"}, {"c", "d"}]


def test_chain_of_ten_thousand_actors_is_no_recursion(sdf):
    graph = sdf(";".join(f"a{i} 1->1 a{i + 1}" for i in range(10_000)))
    assert set(repetition_vector(graph).values()) == {1}
    assert len(schedule(graph).firings) == 10_001


def large(sdf) -> Graph:
    """1,000 actors, consistent by construction, 1,400 FIFOs."""
    rnd = random.Random(1)
    counts = [rnd.choice([1, 2, 3, 4, 6]) for _ in range(1000)]
    pairs = [(rnd.randrange(max(0, i - 10), i), i) for i in range(1, 1000)]
    pairs += [tuple(sorted(rnd.sample(range(1000), 2))) for _ in range(400)]
    edges = []
    for a, b in pairs:
        both = lcm(counts[a], counts[b])
        edges.append(f"n{a} {both // counts[a]}->{both // counts[b]} n{b}")
    return sdf(";".join(edges))


def test_a_thousand_actors_of_several_rates_have_a_schedule(sdf):
    assert len(schedule(large(sdf)).repetitions) == 1000
