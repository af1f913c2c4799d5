"""Every cut of a model is found, and each that is listed can be made."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dataflow.errors import UnderstudyError
from graphs import cuts as under_test
from graphs.cuts import Cut, cuts
from graphs.onnx_model import Model
from graphs.separation import frontier, several
from graphs.split import split
from tests.support.light import light_model

Save = Callable[..., Path]

SINGLE = {
    "bvlc_alexnet": 23,
    "vgg19": 45,
    "zfnet512": 21,
    "squeezenet": 33,
    "resnet50": 39,
    "shufflenet": 39,
    "densenet121": 87,
    "inception_v1": 25,
    "inception_v2": 30,
}
"""Light model -> tensors that separate input from output alone, counted by hand or by
enumeration of all sets of nodes that can come first."""
FRONTIER = {
    "squeezenet": {1: 33, 2: 32},
    "resnet50": {1: 39, 2: 136},
    "densenet121": {1: 87, 2: 580},
    "inception_v1": {1: 25, 2: 18, 3: 36, 4: 63},
}
SEVERAL = {
    "squeezenet": {2: 64},
    "resnet50": {2: 200},
    "shufflenet": {2: 193},
    "inception_v1": {2: 117, 3: 558},
}


def light(name: str) -> Model:
    return Model.read(light_model(name))


def single(model: Model) -> list[Cut]:
    return [cut for cut in cuts(model) if len(cut.tensors) == 1]


@pytest.mark.parametrize("name", SINGLE)
def test_every_tensor_that_separates_alone_is_found(name: str) -> None:
    model = light(name)
    found = single(model)
    assert len(found) == SINGLE[name]
    for cut in found:
        made = split(model, cut.tensors, model.outputs)
        assert sum(t.token.nbytes for t in made.cut) == cut.bytes


@pytest.mark.parametrize("name", FRONTIER)
def test_frontier_is_as_wide_as_it_was_counted(name: str) -> None:
    inner = list(frontier(light(name)))[1:-1]
    assert Counter(map(len, inner)) == FRONTIER[name]


@pytest.mark.parametrize("name", SEVERAL)
def test_sets_of_two_and_three_tensors_are_all_found(name: str) -> None:
    assert Counter(map(len, several(light(name)))) == SEVERAL[name]


def random_model(seed: int, *, inputs: int, outputs: int) -> Model:
    """Return a small graph of sums; a node in five has two outputs."""
    rng = random.Random(seed)
    names = [f"x{i}" for i in range(inputs)]
    made, nodes = list(names), []
    for index in range(rng.randint(4, 9)):
        read = rng.sample(made, min(rng.randint(1, 3), len(made)))
        new = [f"t{index}"]
        nodes.append(helper.make_node("Sum", read, new))
        if not rng.randrange(5):
            new = [f"a{index}", f"b{index}"]
            both = f"c{index}"
            nodes.append(helper.make_node("Concat", [f"t{index}"] * 2, [both], axis=0))
            nodes.append(helper.make_node("Split", [both], new, axis=0))
        made += new
    wanted = [made[-1], *rng.sample(made[inputs:-1], outputs - 1)]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in names],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in wanted],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    return Model(onnx.shape_inference.infer_shapes(proto), f"random {seed}", "0")


def by_trial(model: Model) -> set[tuple[str, ...]]:
    """Return all cuts of up to three tensors, by trying every set of tensors."""
    tensors = sorted(model.dynamic, key=lambda name: (model.rank[name], name))
    found = set()
    for count in (1, 2, 3):
        for names in combinations(tensors, count):
            try:
                split(model, names, model.outputs)
            except UnderstudyError:
                continue
            found.add(names)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_cuts_are_those_that_trying_every_set_of_tensors_finds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test._Alone, "dominate", lambda *_: False)
    model = random_model(seed, inputs=1 + seed % 3, outputs=1)
    assert {cut.tensors for cut in cuts(model)} == by_trial(model)


@pytest.mark.parametrize("seed", range(40))
def test_with_several_outputs_single_cuts_are_complete_and_others_can_be_made(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test._Alone, "dominate", lambda *_: False)
    model = random_model(seed, inputs=1 + seed % 2, outputs=2 + seed % 2)
    found, tried = {cut.tensors for cut in cuts(model)}, by_trial(model)
    assert found <= tried
    assert {c for c in found if len(c) == 1} == {c for c in tried if len(c) == 1}


def test_what_is_dropped_is_no_smaller_than_a_single_cut_on_either_side() -> None:
    model = light("resnet50")
    listed = {cut.tensors: cut for cut in cuts(model)}
    alone = single(model)
    dropped = {n: k for n, k in several(model).items() if n not in listed}
    assert dropped
    for names, nodes in dropped.items():
        size = sum(model.tensor(name).token.nbytes for name in names)
        small = [cut.nodes for cut in alone if (cut.bytes or 0) <= size]
        assert min(small) <= nodes <= max(small)


def test_nodes_of_the_head_are_counted_without_those_on_weights(residual: Path) -> None:
    found = {cut.tensors: cut.nodes for cut in cuts(Model.read(residual))}
    assert {names: found[names] for names in found if len(names) == 1} == {
        ("m0",): 1,
        ("a",): 2,
        ("c",): 5,
        ("d",): 6,
    }


def test_cut_is_useful_at_the_end_of_a_group_or_where_it_is_smaller() -> None:
    found = single(light("squeezenet"))
    noted = {cut.tensors[0]: cut for cut in found}
    convolution, relu = noted["r63"], noted["r64"]
    assert (convolution.useful, convolution.notes) == (False, ("inside a layer group",))
    assert (relu.useful, relu.notes) == (True, ())
    assert noted["r65"].useful  # a pooling to 4 kB in front of the softmax of it
    smallest = float("inf")
    for cut in found:
        assert cut.bytes is not None
        if "inside a layer group" not in cut.notes:
            assert cut.useful
        elif cut.useful:
            assert cut.bytes < smallest
        if cut.useful:
            smallest = min(smallest, cut.bytes)


def test_input_that_crosses_is_told_even_if_rearranged(save: Save) -> None:
    path = save(
        "focus",
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
            helper.make_node("Sub", ["t", "mean"], ["s"]),
            helper.make_node("MatMul", ["s", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
        ],
        inputs={"x": [4, 4]},
        outputs={"y": [4, 4]},
        weights={
            "mean": np.ones((4, 4), np.float32),
            "w": np.ones((4, 4), np.float32),
        },
    )
    found = {cut.tensors[0]: cut for cut in single(Model.read(path))}
    assert {name: cut.raw_input for name, cut in found.items()} == {
        "t": True,
        "s": True,
        "m": False,
    }
    assert "the input, rearranged" in found["s"].notes
    assert not found["s"].useful
