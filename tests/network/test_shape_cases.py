"""Shape cases: the corners of the sizes, from real samples."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_release.core.errors import DataError
from onnx_release.core.spec import Dimension, Spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import SampleFile, fit_to_shape, write_samples
from onnx_release.network.shape_cases import case_inputs, case_name, odd_size, shape_cases


def spec(**dimensions):
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {n: {"min": a, "max": b, "example": c} for n, (a, b, c) in dimensions.items()},
            "inputs": [{"name": "x", "dtype": "int64", "shape": [*dimensions, 2] if dimensions else [1, 2]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch" if dimensions else 1]}],
        }
    )


def test_one_dimension_is_tried_at_minimum_maximum_example_and_an_odd_size():
    assert shape_cases(spec(batch=(1, 32, 2))) == [{"batch": 1}, {"batch": 32}, {"batch": 2}, {"batch": 7}]


def test_two_dimensions_are_tried_at_all_four_corners():
    cases = shape_cases(spec(batch=(1, 4, 2), width=(48, 640, 96)))
    assert [(case["batch"], case["width"]) for case in cases] == [
        (1, 48),
        (1, 640),
        (4, 48),
        (4, 640),
        (2, 96),
        (3, 175),
    ]


def test_three_dimensions_have_eight_corners():
    cases = shape_cases(spec(batch=(1, 4, 2), height=(8, 32, 16), width=(16, 64, 32)))
    corners = {(case["batch"], case["height"], case["width"]) for case in cases[:8]}
    assert corners == {(b, h, w) for b in (1, 4) for h in (8, 32) for w in (16, 64)}
    assert cases[8:] == [{"batch": 2, "height": 16, "width": 32}, {"batch": 3, "height": 17, "width": 33}]


def test_five_dimensions_have_thirty_two_corners():
    cases = shape_cases(spec(**dict.fromkeys(["batch", "a", "b", "c", "d"], (1, 9, 4))))
    assert [tuple(case.values()) for case in cases] == [*itertools.product((1, 9), repeat=5), (4,) * 5, (3,) * 5]


@pytest.mark.parametrize("count", [6, 10, 40])
def test_many_dimensions_have_a_few_corners_with_every_pair_of_bounds(count, make_spec):
    names = ["batch", *(f"size_{index}" for index in range(1, count))]
    inputs = {f"with_{name}": ["batch", name] for name in names[1:]}
    cases = shape_cases(make_spec(inputs, {"y": ["batch"]}, **dict.fromkeys(names, (1, 9, 4))))
    assert len(cases) <= 12
    for one, other in itertools.combinations(names, 2):
        assert {(case[one], case[other]) for case in cases} >= set(itertools.product((1, 9), repeat=2))
    same = [set(case.values()) for case in cases]
    assert (same[0], same[-3:]) == ({1}, [{9}, {4}, {3}])


def test_the_same_sizes_are_tried_once():
    assert shape_cases(spec(batch=(1, 2, 2))) == [{"batch": 1}, {"batch": 2}]


def test_a_model_without_symbols_has_one_case():
    assert shape_cases(spec()) == [{}]
    assert case_name({}) == "fixed"
    assert case_name({"batch": 1, "width": 48}) == "batch=1,width=48"


@pytest.mark.parametrize(("low", "high", "odd"), [(1, 32, 7), (48, 640, 175), (1, 2, 1), (2, 2, 2), (3, 4, 3)])
def test_the_odd_size_is_near_the_geometric_mean(low, high, odd):
    # By hand: the square root of 32 is 5.7, next to it 6, the next odd 7; of 48 * 640 it is 175.3.
    assert odd_size(Dimension(min=low, max=high, example=high)) == odd


def test_an_array_is_repeated_or_cut_to_fit():
    array = np.array([[1, 2, 3], [4, 5, 6]])
    assert fit_to_shape(array, (3, 2)).tolist() == [[1, 2], [4, 5], [1, 2]]
    assert fit_to_shape(array, (1, 7)).tolist() == [[1, 2, 3, 1, 2, 3, 1]]
    assert fit_to_shape(array, (2, 3)).tolist() == array.tolist()
    assert fit_to_shape(np.array(5), ()).tolist() == 5
    assert isinstance(fit_to_shape(np.array(5), ()), np.ndarray)


def test_a_case_holds_real_samples_drawn_by_the_seed(tmp_path):
    declared = spec(batch=(1, 8, 2), width=(1, 9, 2))
    items = [Sample({"x": np.full((3, 2), index, np.int64)}) for index in range(5)]
    write_samples(tmp_path / "a.npz", items, 10, declared)
    samples = SampleFile(tmp_path / "a.npz")
    case = case_inputs(declared, {"batch": 4, "width": 5}, samples, seed=0)["x"]
    assert case.shape == (4, 5, 2)
    assert case.dtype == np.int64
    drawn = case[:, 0, 0].tolist()
    assert len(set(drawn)) == 4  # no sample twice while there are enough
    assert (case == case[:, :1, :1]).all()
    again = case_inputs(declared, {"batch": 4, "width": 5}, samples, seed=0)["x"]
    assert (again == case).all()
    others = [
        case_inputs(declared, {"batch": 4, "width": 5}, samples, seed)["x"][:, 0, 0].tolist() for seed in range(9)
    ]
    assert any(other != drawn for other in others)
    assert case_inputs(declared, {"batch": 8, "width": 1}, samples, seed=0)["x"].shape == (8, 1, 2)


def test_all_inputs_of_a_row_come_from_one_sample_and_fit_by_their_own_axes(tmp_path):
    declared = Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {name: {"min": 1, "max": 9, "example": 2} for name in ("batch", "length", "width")},
            "inputs": [
                {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
                {"name": "x", "dtype": "float32", "shape": ["batch", "width", "length"]},
            ],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch"]}],
        }
    )
    items = [Sample({"ids": np.array([n, 10 + n]), "x": np.array([[n, n], [100, 100]], np.float32)}) for n in range(9)]
    write_samples(tmp_path / "a.npz", items, 9, declared)
    case = case_inputs(declared, {"batch": 9, "length": 3, "width": 1}, SampleFile(tmp_path / "a.npz"), seed=1)
    first = case["ids"][:, 0]
    assert sorted(first) == list(range(9))
    assert case["ids"].tolist() == [[n, 10 + n, n] for n in first]
    assert case["x"].tolist() == [[[n, n, n]] for n in first]


def test_sizes_in_steps_stay_in_them_and_may_begin_at_nothing():
    width = Dimension(min=1, max=100, example=64, multiple_of=32)
    past = Dimension(min=0, max=9, example=4)
    stepped = spec(batch=(1, 2, 2), width=(1, 2, 2), past=(1, 2, 2))
    stepped = stepped.model_copy(update={"dimensions": {**stepped.dimensions, "width": width, "past": past}})
    cases = shape_cases(stepped)
    assert {case["width"] for case in cases} == {32, 96, 64}
    assert {case["past"] for case in cases} == {0, 9, 4, 1}
    assert odd_size(Dimension(min=32, max=640, example=64, multiple_of=32)) == 160  # 5 steps of 32


def test_sizes_that_only_outputs_have_are_not_tried(make_spec):
    found = make_spec({"x": ["batch"]}, {"y": ["boxes"]}, batch=(1, 2, 2), boxes=(1, 9, 3))
    assert shape_cases(found) == [{"batch": 1}, {"batch": 2}]


def data_with(examples: Any) -> Any:
    """A data.py of which only examples() is asked for."""
    return SimpleNamespace(examples=examples)


def edges_between_nodes(sizes):
    return {"edges": np.arange(2 * sizes["m"]).reshape(2, -1) % sizes["n"]}


@pytest.fixture
def graph(tmp_path, make_spec):
    declared = make_spec({"x": ["n", 3], "edges": [2, "m"]}, {"y": ["n"]}, n=(2, 9, 4), m=(2, 9, 5))
    declared.inputs[1] = declared.inputs[1].model_copy(update={"dtype": "int64"})
    item = Sample({"x": np.ones((8, 3), np.float32), "edges": np.full((2, 5), 7)})
    write_samples(tmp_path / "a.npz", [item], 1, declared)
    return declared, SampleFile(tmp_path / "a.npz")


def test_inputs_whose_values_follow_the_sizes_come_from_examples(graph):
    declared, samples = graph
    case = case_inputs(declared, {"n": 2, "m": 3}, samples, 0, data_with(edges_between_nodes))
    assert case["edges"].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert case["x"].tolist() == np.ones((2, 3)).tolist()  # a real sample, cut
    assert case_inputs(declared, {"n": 2, "m": 3}, samples, 0)["edges"].tolist() == [[7] * 3] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"edge": np.zeros((2, 3))}, r"gives edge, spec\.yaml declares x, edges"),
        ({"edges": np.zeros((2, 3))}, r"edges is float64 where int64 is declared: return int64 \[2, 3\]"),
        ({"edges": np.zeros((2, 4), np.int64)}, r"\(m is 3\): return int64 \[2, 3\]"),
    ],
)
def test_examples_that_contradict_the_spec_are_named(graph, given, message):
    declared, samples = graph
    with pytest.raises(DataError, match=message):
        case_inputs(declared, {"n": 2, "m": 3}, samples, 0, data_with(lambda sizes: given))
