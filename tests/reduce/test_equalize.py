"""Channels come closer in size, and the answers stay."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.graph.graph import load_model, save_model
from onnx_release.reduce.equalize import (
    bounded_groups,
    bounded_scale,
    channel_sizes,
    equalize,
    equalize_on,
    groups,
    linear_groups,
)
from tests.residual import save_inputs, save_network
from tests.samples import save_samples

EVEN = {name: np.ones(8) for name in ("r1", "r2")}  # nothing to bring closer


@pytest.fixture
def network(save_graph):
    return onnx.load(save_network(save_graph))


def test_only_what_nothing_but_add_touches_is_linear(network):
    (group,) = linear_groups(network)
    assert group.values == ["a", "c3", "c4"]
    assert [layer.name for layer in group.makers] == ["project", "inner"]
    assert [layer.name for layer in group.takers] == ["inner", "expand"]


def test_what_a_relu_bounds_between_convolutions_can_be_scaled_too(network):
    assert [(group.values, group.bound) for group in bounded_groups(network)] == [(["r1"], 6), (["r2"], 6)]
    assert [layer.name for group in bounded_groups(network) for layer in group.takers] == ["depthwise", "project"]


def test_the_answers_stay_and_the_channels_come_closer(network, tmp_path):
    samples = save_inputs(tmp_path)
    equalized = equalize_on(network, samples, 4)
    assert equalized.values == 4 and equalized.failure == ""  # every channel of r1 is large enough
    scaled = equalized.model
    x = {"x": samples.inputs(0)["x"][np.newaxis]}
    before, after = (session_of(model).run(None, x)[0] for model in (network, scaled))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)

    def spread(model, name):
        sizes = np.abs(session_of(extract_subgraph(model, [name])).run(None, x)[0]).max(axis=(0, 2, 3))
        return sizes.max() / sizes[sizes > 0].min()

    assert spread(scaled, "c3") < 0.5 * spread(network, "c3")
    assert spread(scaled, "r2") < spread(network, "r2")


def test_behind_a_bound_small_channels_grow_and_keep_room():
    """Up to 6 of 6: channels of 3 and more stay, one of 0.75 could grow to 3 and goes half of the way."""
    np.testing.assert_allclose(bounded_scale(np.array([6.0, 3.0, 0.75, 0.0]), 6.0), [1, 1, 2, 1])
    np.testing.assert_allclose(bounded_scale(np.array([32.0, 1.0]), np.inf), [1, 4])


def test_a_channel_may_be_twice_what_was_seen_before_the_bound_cuts_it(network):
    sizes = np.array([6.0, 3.0, 1.0, 0.1, 6.0, 6.0, 6.0, 6.0])
    scaled, _ = equalize(network, dict.fromkeys(["r1", "r2"], sizes) | dict.fromkeys(["a", "c3", "c4"], np.ones(4)))
    x = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32) * 5
    before, after = (session_of(extract_subgraph(model, ["r1"])).run(None, {"x": x})[0] for model in (network, scaled))
    scale = bounded_scale(sizes, 6.0).reshape(-1, 1, 1)
    seen = before <= 2 * sizes.reshape(-1, 1, 1)
    np.testing.assert_allclose((after / scale)[seen], before[seen], rtol=1e-4, atol=1e-5)
    assert (after <= 6).all() and not seen.all()


def test_scales_are_the_square_root_of_what_is_missing(network):
    """Sizes 1 and 16 have the geometric mean 4, so their scales are 2 and a half."""
    sizes = np.array([1.0, 16.0, 4.0, 4.0])
    scaled, _ = equalize(network, dict.fromkeys(["a", "c3", "c4"], sizes) | EVEN)
    bias = {
        name: {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}["b3"]
        for name, model in (("before", network), ("after", scaled))
    }
    np.testing.assert_allclose(bias["after"] / bias["before"], [2, 0.5, 1, 1], rtol=1e-6)


def test_a_dead_channel_leaves_its_value_alone(network):
    _, count = equalize(network, dict.fromkeys(["a", "c3", "c4"], np.array([1.0, 0.0, 1.0, 1.0])) | EVEN)
    assert count == 0


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "Mul"])
def test_a_value_that_anything_else_takes_is_not_linear(save_graph, operator):
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "v": np.ones((2, 2, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one"),
        helper.make_node("Conv", ["a", "v"], ["b"], name="two"),
        helper.make_node(operator, ["a", "a"] if operator == "Mul" else ["a"], ["c"], name="other"),
        helper.make_node("Add", ["b", "c"], ["y"], name="sum"),
    ]
    model = onnx.load(save_graph(nodes, [("x", ["n", 2, 3, 3])], [("y", ["n", 2, 3, 3])], weights))
    assert groups(model) == []


def test_what_cannot_be_equalized_stays_as_it_is_and_says_why(network, tmp_path):
    wrong = save_samples(tmp_path / "wrong.npz", [np.zeros((2, 8, 8), np.float32)])
    equalized = equalize_on(network, wrong, 4)
    assert equalized.model is network and equalized.values == 0
    assert equalized.failure.startswith("GraphError: the model fails on x [1, 2, 8, 8]")


def test_weights_in_another_file_are_scaled_too(save_graph, tmp_path):
    (tmp_path / "source").mkdir()
    path = save_model(onnx.load(save_network(save_graph)), tmp_path / "source", threshold=0)
    model = load_model(path, weights=False)
    samples = save_inputs(tmp_path)
    equalized = equalize_on(model, samples, 4, path.parent)
    assert (equalized.values, equalized.failure) == (4, "")
    x = {"x": samples.inputs(0)["x"][np.newaxis]}
    before, after = (session_of(each, weights=path.parent).run(None, x)[0] for each in (model, equalized.model))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_has_channels_of_size_zero():
    assert list(channel_sizes(np.zeros((0, 3, 2), np.float32))) == [0, 0, 0]
