"""Parts of about the same work: as good as any division there is."""

import random
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from dataflow.errors import UnderstudyError
from graphs.evenly import _divide, even_cuts, macs_of
from graphs.onnx_model import Model
from tests.support.light import light_model


@pytest.mark.parametrize("seed", range(20))
def test_largest_part_is_as_small_as_trying_every_division_finds(seed: int) -> None:
    rng = random.Random(seed)
    work = sorted(rng.sample(range(1, 100), 8))
    places = [(at, rng.randint(1, 9)) for at in work]
    parts = 2 + seed % 4

    def cost(chosen: tuple[int, ...]) -> tuple[int, int]:
        ends = [0, *(places[index][0] for index in chosen), 100]
        largest = max(b - a for a, b in pairwise(ends))
        return largest, sum(places[index][1] for index in chosen)

    best = min(map(cost, combinations(range(len(places)), parts - 1)))
    assert cost(_divide(places, 100, parts)) == best


def test_multiplications_of_a_known_network_are_those_that_are_published() -> None:
    model = Model.read(light_model("resnet50"))
    total = sum(macs_of(model, index) for index in range(len(model.nodes)))
    # He et al., "Deep Residual Learning for Image Recognition", table 1: 3.8e9; here
    # with the stride in the first convolution of a block, as published.
    assert 3.7e9 < total < 4.2e9


def test_layer_groups_stay_whole_where_there_are_enough(digits: Path) -> None:
    found, measure = even_cuts(Model.read(digits / "digits.onnx"), 3)
    assert measure == "multiplications"
    assert {name.rpartition("/")[2] for (name,) in found} <= {
        *("out", "features1", "features2", "features3")
    }
    assert not any("conv" in name or "add" in name for (name,) in found)


def test_more_parts_than_places_are_refused(digits: Path) -> None:
    with pytest.raises(UnderstudyError, match="separates at 12 places, 14 parts"):
        even_cuts(Model.read(digits / "digits.onnx"), 14)
