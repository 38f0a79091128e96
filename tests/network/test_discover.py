"""What a network takes and gives, found by running it, on networks whose sizes are known by construction."""

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.core.errors import NetworkError
from onnx_release.network.discover import VALUES, discover
from onnx_release.network.example_arguments import name_arguments
from onnx_release.network.size_formula import size_formula


def found(network, examples):
    """The shapes by name, the bounds and steps by dimension, and the derived sizes."""
    discovery = discover(network.eval(), name_arguments(network, examples))
    inputs = {tensor.name: tensor.shape for tensor in discovery.inputs}
    outputs = {tensor.name: tensor.shape for tensor in discovery.outputs}
    bounds = {item.name: (item.smallest, item.largest, item.step) for item in discovery.dimensions}
    return inputs, outputs, bounds, dict(discovery.derived)


class Recurrent(nn.Module):
    """An LSTM with its state as a nested argument and a nested result by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(5, 6, 2, batch_first=True)

    def forward(self, x, state):
        values, after = self.layer(x, state)
        return {"values": values, "state": after, "nothing": None}


class Encoder(nn.Module):
    """Token ids and a mask, which is given by name alone, with a table of 20 positions."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(9, 4), nn.Embedding(20, 4)

    def forward(self, ids, *, mask):
        states = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return (states * mask.unsqueeze(-1)).sum(1)


def test_the_batch_of_nested_states_is_on_another_axis_and_a_batch_of_one_is_made_two():
    state = (torch.zeros(2, 1, 6), torch.zeros(2, 1, 6))
    inputs, outputs, bounds, derived = found(Recurrent(), (torch.randn(1, 4, 5), state))
    assert inputs == {
        "x": ("batch", "sequence", 5),
        "state.0": (2, "batch", 6),
        "state.1": (2, "batch", 6),
    }
    assert outputs == {"values": ("batch", "sequence", 6), "state.0": (2, "batch", 6), "state.1": (2, "batch", 6)}
    assert bounds == {"batch": (1, 16, 1), "sequence": (2, 32, 1)} and derived == {}


def test_axes_that_only_vary_together_are_one_size_and_its_largest_is_that_of_the_table():
    examples = {"mask": torch.ones(2, 6, dtype=torch.bool), "ids": torch.ones(2, 6, dtype=torch.int64)}
    inputs, outputs, bounds, _ = found(Encoder(), examples)
    assert inputs == {"mask": ("batch", "sequence"), "ids": ("batch", "sequence")}
    assert outputs == {"": ("batch", 4)}
    assert bounds["sequence"] == (2, 20, 1)


def test_sizes_of_outputs_have_the_formula_by_which_they_follow():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(2, 2, 2, stride=2))
    inputs, outputs, bounds, derived = found(network, np.zeros((2, 1, 20, 24)))
    assert inputs == {"input": ("batch", 1, "height", "width")}
    assert outputs == {"": ("batch", 2, "height_out", "width_out")}
    # ((n - 3) // 2 + 1) // 2 = (n - 1) // 4
    for size in (20, 24, 37):
        wanted = ((size - 3) // 2 + 1) // 2
        assert eval(derived["height_out"], {"height": size}) == wanted
    assert bounds["height"] == (12, 20, 1) and bounds["width"] == (12, 24, 1)


def test_a_network_of_halves_takes_sizes_in_steps():
    class Halves(nn.Module):
        def forward(self, x):
            small = nn.functional.max_pool2d(x, 4)
            return x + nn.functional.interpolate(small, scale_factor=4.0)

    inputs, outputs, bounds, _ = found(Halves(), torch.randn(2, 3, 32, 32))
    assert outputs[""][2:] == ("height", "width") and inputs["x"][2:] == ("height", "width")
    assert bounds["height"] == (16, 32, 4)


def test_sides_of_pictures_that_are_pooled_away_stay_numbers_and_are_told():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, image):
            return self.layer(image).mean((2, 3))

    network = Pooled()
    discovery = discover(network, name_arguments(network, torch.randn(2, 3, 16, 16)))
    assert discovery.inputs[0].shape == ("batch", 3, 16, 16)
    assert [item.name for item in discovery.fixed] == ["height", "width"]


def test_a_size_that_follows_from_values_and_one_of_all_rows():
    class Selected(nn.Module):
        def forward(self, x, table):
            return x[x > 0.5], x.flatten(), table.sum()

    x = torch.linspace(-1, 2, 21).reshape(3, 7)
    inputs, outputs, _, derived = found(Selected(), (x, torch.ones(4)))
    assert inputs["x"] == ("batch", "length")
    assert derived == {outputs["0"][0]: VALUES, outputs["1"][0]: "batch * length"}
    assert outputs["2"] == ()


class Cached(nn.Module):
    """Attention over a cache and the new tokens, with a mask over both."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, mask, x, past):
        keys = self.layer(torch.cat([past, x], 1))
        scores = (x @ keys.transpose(1, 2)).masked_fill(~mask[:, None], -1e4)
        return scores.softmax(-1) @ keys, keys


def test_the_smallest_size_of_the_examples_is_no_step():
    halves = nn.Sequential(*[nn.MaxPool2d(2) for _ in range(5)])
    _, _, bounds, _ = found(halves, torch.randn(2, 3, 32, 32))
    assert [bounds[name][2] for name in ("height", "width")] == [1, 1]


def test_three_texts_of_which_one_has_the_length_of_the_others_together_stay_apart():
    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(9, 4)

        def forward(self, words, chars, title):
            return sum(self.tokens(ids).mean(1) for ids in (words, chars, title))

    texts = tuple(torch.ones(2, length, dtype=torch.int64) for length in (12, 5, 7))
    inputs, _, bounds, _ = found(Texts(), texts)
    assert len(bounds) == 4 and all(axis in bounds for shape in inputs.values() for axis in shape)


def test_what_is_one_size_less_another_is_found_though_it_would_be_negative_at_some():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(4, 4, 10)

        def forward(self, tail, chunk, gain):
            return self.layer(torch.cat([tail, chunk], 1).transpose(1, 2)) * gain.transpose(1, 2)

    examples = (torch.randn(2, 3, 4), torch.randn(2, 10, 4), torch.randn(2, 4, 1))
    inputs, _, _, _ = found(Windows(), examples)
    assert inputs["gain"][0] == "batch"


class Slopes(nn.Module):
    """Differences of neighbours by the gaps between them, of which there is one less."""

    def forward(self, gaps, values):
        return (values[:, 1:] - values[:, :-1]) / gaps


def test_axes_that_grow_with_other_sizes_are_formulas():
    mask = torch.ones(2, 9, dtype=torch.bool)
    examples = (mask, torch.randn(2, 4, 3), torch.randn(2, 5, 3))
    discovery = discover(Cached(), name_arguments(Cached(), examples))
    shapes = {tensor.name: tensor.shape for tensor in discovery.inputs}
    assert shapes["x"] == ("batch", "sequence", 3) and shapes["past"] == ("batch", "past_sequence", 3)
    assert shapes["mask"] == ("batch", "sequence + past_sequence")
    assert list(discovery.derived.values()) == ["sequence + past_sequence"]
    gaps, values = discover(Slopes(), name_arguments(Slopes(), (torch.ones(2, 7), torch.randn(2, 8)))).inputs
    assert (gaps.shape, values.shape) == (("batch", "length"), ("batch", "length + 1"))


class Graph(nn.Module):
    """Nodes that add up what their neighbours send."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, edge_index):
        source, target = edge_index
        sent = self.layer(x)
        return torch.zeros_like(sent).index_add(0, target, sent[source])


class Steps(nn.Module):
    """A recurrent layer that takes one sequence without a batch, or several with the steps in front."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(3, 4)

    def forward(self, x, state):
        return self.layer(x, (state, state))[0]


class Attention(nn.Module):
    def forward(self, x):
        return (x @ x.T).softmax(-1) @ x


class BelowLargest(nn.Module):
    def forward(self, x):
        return x - x.max()


class Counts(nn.Module):
    def forward(self, mask):
        return mask.cumsum(0)


EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])


@pytest.mark.parametrize(
    ("network", "examples", "inputs", "output"),
    [
        (Graph(), (torch.randn(6, 3), EDGES), [("nodes", 3), (2, "edges")], ("nodes", 4)),
        (Steps(), (torch.randn(5, 3), torch.randn(1, 4)), [("sequence", 3), (1, 4)], ("sequence", 4)),
        (Attention(), torch.randn(6, 3), [("sequence", "length")], ("sequence", "length")),
        (nn.Softmax(0), torch.zeros(6, 3), [("sequence", "length")], ("sequence", "length")),
        (BelowLargest(), torch.full((5, 3), 0.6), [("sequence", "length")], ("sequence", "length")),
        (Counts(), torch.ones(5, 3, dtype=torch.bool), [("sequence", "mask_sequence")], ("sequence", "mask_sequence")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_first_axis_whose_items_depend_on_each_other_is_a_size_and_no_batch(network, examples, inputs, output):
    shapes, outputs, _, _ = found(network, examples)
    assert (list(shapes.values()), outputs[""]) == (inputs, output)


@pytest.mark.parametrize(
    ("network", "examples", "inputs", "output"),
    [
        (nn.Linear(3, 4), torch.randn(5, 3), [("batch", 3)], ("batch", 4)),
        (nn.BatchNorm1d(3), torch.zeros(5, 3), [("batch", 3)], ("batch", 3)),
        (nn.Embedding(9, 4), torch.arange(5), [("batch",)], ("batch", 4)),
        (nn.Sequential(nn.Linear(3, 4), nn.Flatten(0)), torch.randn(5, 3), [("batch", 3)], ("flattened",)),
        # The steps are in front.
        (
            Steps(),
            (torch.randn(5, 2, 3), torch.randn(1, 2, 4)),
            [("sequence", "batch", 3), (1, "batch", 4)],
            ("sequence", "batch", 4),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_batch_is_an_axis_of_independent_items(network, examples, inputs, output):
    shapes, outputs, _, derived = found(network, examples)
    names = {name: "flattened" for name, formula in derived.items() if formula == "4 * batch"}
    assert list(shapes.values()) == inputs
    assert tuple(names.get(size, size) for size in outputs[""]) == output


@pytest.mark.parametrize(
    ("given", "wanted", "formula"),
    [
        ([8, 9, 11], [8, 9, 11], "n"),
        ([8, 9, 11], [6, 7, 9], "n - 2"),
        ([8, 9, 11], [17, 19, 23], "2 * n + 1"),
        ([8, 9, 11], [4, 4, 5], "n // 2"),
        ([8, 9, 11], [4, 5, 6], "-(-n // 2)"),
        ([32, 33, 35, 64], [6, 6, 6, 10], "(n + 16) // 8"),
        ([8, 9, 11], [8, 3, 5], None),
    ],
)
def test_formulas_of_sizes(given, wanted, formula):
    assert size_formula("n", given, wanted) == formula


class Joined(nn.Module):
    def forward(self, ids, past_ids):
        return torch.cat([past_ids, ids], 1) * 2


class Masked(nn.Module):
    """Takes a mask that is as long as the cache and the sequence together."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x, mask, past):
        keys = torch.cat([past, self.layer(x)], 1)
        return (keys * mask.unsqueeze(-1)).sum(1), keys


class EmptyOnly(nn.Module):
    def forward(self, x, past):
        if past.shape[1]:
            raise ValueError("a cache is not known yet")
        return x + 1


def test_an_empty_cache_may_be_an_example_and_its_smallest_size_is_zero():
    inputs, outputs, bounds, derived = found(
        Joined(), (torch.ones(2, 6, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64))
    )
    assert inputs == {"ids": ("batch", "sequence"), "past_ids": ("batch", "past_ids_sequence")}
    assert bounds["past_ids_sequence"] == (0, 32, 1)
    assert derived == {outputs[""][1]: "sequence + past_ids_sequence"}


def test_a_mask_grows_with_an_empty_cache():
    inputs, _, bounds, _ = found(Masked(), (torch.randn(1, 3, 5), torch.ones(1, 3), torch.zeros(1, 0, 5)))
    assert inputs["past"] == ("batch", "past_sequence", 5) and bounds["past_sequence"][0] == 0
    assert inputs["mask"] == ("batch", "sequence + past_sequence")


def test_an_axis_of_length_zero_that_takes_no_other_size_is_named():
    with pytest.raises(NetworkError, match=r"length 0 in the example of past \[2, 0, 5\], .* with 4 there: ValueError"):
        found(EmptyOnly(), (torch.randn(2, 3, 5), torch.zeros(2, 0, 5)))


def test_inputs_that_the_network_does_not_take_are_named():
    with pytest.raises(NetworkError, match=r"forward\(ids, mask\) has no mass"):
        name_arguments(Encoder(), {"mass": torch.ones(2, 6)})
    with pytest.raises(NetworkError, match=r"fails on its example inputs, ids \[2, 6\]: TypeError: .*mask"):
        found(Encoder(), {"ids": torch.ones(2, 6, dtype=torch.int64)})
    with pytest.raises(NetworkError, match="the output is complex64, and a spec knows only float32"):
        found(nn.Sequential(Spectrum()), torch.ones(2, 8))


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x)
