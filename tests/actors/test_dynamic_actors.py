"""Actors that decide, route, batch and sample."""

from typing import Any

import numpy as np
import pytest

from actors import behaviour
from dataflow.behaviour import Site
from dataflow.errors import UnderstudyError


def made(kind: str, params: dict[str, Any], site: Site) -> Any:
    found = behaviour(kind)
    found.ports(params)
    return found(params, site)


SCORES = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))


@pytest.mark.parametrize(
    ("params", "mode"),
    [
        ({"threshold": 0.69}, 0),
        ({"threshold": 0.71}, 1),
        ({"threshold": 0.49, "measure": "margin"}, 0),
        ({"threshold": 0.51, "measure": "margin"}, 1),
        ({"threshold": 0}, 0),
        ({"threshold": 1.01}, 1),
    ],
)
def test_gate_is_sure_from_its_threshold_on(
    params: dict[str, Any], mode: int, site: Site
) -> None:
    assert made("confidence", params, site).fire(SCORES) == mode


def test_probabilities_are_taken_as_they_are(site: Site) -> None:
    gate = made("confidence", {"threshold": 0.65, "measure": "probability"}, site)
    assert gate.fire(np.array([0.3, 0.7], np.float32)) == 0
    assert gate.fire(np.array([0.4, 0.6], np.float32)) == 1


def test_every_row_must_be_sure(site: Site) -> None:
    gate = made("confidence", {"threshold": 0.9}, site)
    sure, unsure = [9.0, 0.0], [0.1, 0.0]
    assert gate.fire(np.array([sure, sure])) == 0
    assert gate.fire(np.array([sure, unsure])) == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_never_sure(wrong: float, site: Site) -> None:
    gate = made("confidence", {"threshold": 0.0}, site)
    assert gate.fire(np.array([wrong, 0.0])) == 1


def test_large_scores_do_not_overflow(site: Site) -> None:
    gate = made("confidence", {"threshold": 0.9}, site)
    assert gate.fire(np.array([4000.0, 0.0], np.float32)) == 0


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        ("confidence", {}, "parameter 'threshold': missing"),
        ("confidence", {"threshold": -0.1}, "parameter 'threshold': -0.1 is not"),
        ("confidence", {"threshold": 7}, "parameter 'threshold': 7 is no confidence"),
        ("confidence", {"threshold": 1, "measure": "max"}, "'max' is not known"),
        ("batch", {"size": 0, "token": "float32[1]"}, "parameter 'size': 0 is not"),
        ("batch", {"size": 4, "token": "float[1]"}, "token type 'float[1]'"),
        ("sample", {"of": 4, "keep": 5, "token": "float32[1]"}, "'keep': 5"),
        ("sample", {"of": 4, "keep": 0, "token": "float32[1]"}, "'keep': 0"),
        ("sample", {"of": 4, "keep": [2, 1], "token": "float32[1]"}, "'keep': [2, 1]"),
        ("switch", {}, "parameter 'ports': missing"),
    ],
)
def test_wrong_parameter_is_named(kind: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(UnderstudyError) as wrong:
        behaviour(kind).ports(params)
    assert said in str(wrong.value)


def test_batch_joins_along_the_first_axis(site: Site) -> None:
    params = {"size": 3, "token": "float32[2,5]"}
    _, whole = behaviour("batch").ports(params)
    tokens = [np.full((2, 5), i, np.float32) for i in range(3)]
    batch = made("batch", params, site).fire(tokens)
    assert str(whole.token) == "float32[6,5]"
    assert (batch.shape, batch.dtype) == ((6, 5), np.float32)
    assert batch[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_batch_of_scalars_is_a_vector(site: Site) -> None:
    params = {"size": 2, "token": "int64[]"}
    _, whole = behaviour("batch").ports(params)
    assert str(whole.token) == "int64[2]"
    assert made("batch", params, site).fire([np.array(4), np.array(7)]).tolist() == [
        4,
        7,
    ]


@pytest.mark.parametrize(
    ("of", "keep", "kept"),
    [
        (4, 1, [3]),
        (4, 2, [1, 3]),
        (4, 4, [0, 1, 2, 3]),
        (5, 2, [1, 4]),
        (7, 3, [1, 3, 6]),
    ],
)
def test_samples_are_spread_evenly_and_end_with_the_newest(
    of: int, keep: int, kept: list[int], site: Site
) -> None:
    params = {"of": of, "keep": keep, "token": "int64[]"}
    sample = made("sample", params, site)
    got = sample.fire([np.array(i) for i in range(of)], rates=(keep,))
    assert [int(each) for each in (got if keep > 1 else [got])] == kept


def test_sample_of_several_rates_is_told_its_mode(site: Site) -> None:
    params = {"of": 4, "keep": [1, 4], "token": "int64[]"}
    _, mode, kept = behaviour("sample").ports(params)
    assert (mode.control, kept.rates) == (True, (1, 4))


def test_switch_gives_each_input_to_the_outputs_that_have_a_rate(site: Site) -> None:
    switch = behaviour("switch")({"gives": [0, 0, 1]}, site)
    assert switch.fire("early", "late", rates=(1, 0, 0)) == ("early", [], [])
    assert switch.fire("early", "late", rates=(0, 1, 1)) == ([], "early", "late")


def test_select_gives_on_what_came(site: Site) -> None:
    select = behaviour("select")({}, site)
    assert select.fire([], "late") == "late"
    assert select.fire("early", []) == "early"


def test_copy_gives_the_same_token_to_all(site: Site) -> None:
    token = np.zeros(3)
    first, second = behaviour("copy")({}, site).fire(token, rates=(1, 1))
    assert first is token
    assert second is token
