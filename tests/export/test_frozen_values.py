"""Values of the inputs that a network reads into Python, which a trace fixes."""

import inspect

import numpy as np
import pytest
import torch

from onnx_release.export.frozen_values import value_reads


class Reader(torch.nn.Module):
    """Applies `run` to a float input and to the buffer `limit`."""

    def __init__(self, run):
        super().__init__()
        self.register_buffer("limit", torch.tensor(2.0))
        self.run = run

    def forward(self, x):
        return self.run(x, self.limit)


def branch(x, limit):
    return x if x.sum() > limit else -x


def number(x, limit):
    return x * float((x * limit).max())


def in_numpy(x, limit):
    return x + torch.from_numpy(np.asarray(x.detach()) * 2)


def changed(x, limit):
    kept = torch.zeros(3)
    kept[0] = x[0, 0]
    kept.mul_(2)
    return x if torch.equal(kept, torch.zeros(3)) else -x


def size(x, limit):
    return x if x.shape[0] > 1 and len(x) > 1 else -x


def buffer(x, limit):
    return x * limit.item()


def like(x, limit):
    return x if torch.ones_like(x).sum() > 1 else -x


def checked(x, limit):
    assert x.sum() < 1e9
    if (x > 1e9).any():
        raise ValueError("too large")
    return x


@pytest.mark.parametrize("run", [branch, number, in_numpy, changed])
def test_a_read_of_a_value_is_named(run):
    (line,) = value_reads(Reader(run), (torch.ones(2, 3),))
    file, _, number = line.rpartition(":")
    lines, first = inspect.getsourcelines(run)
    assert file == "tests/export/test_frozen_values.py"
    assert any(word in lines[int(number) - first] for word in ("x.sum() > limit", ".max()", "asarray", "torch.equal"))


@pytest.mark.parametrize("run", [size, buffer, like, checked])
def test_sizes_weights_and_checks_that_only_raise_are_no_such_values(run):
    assert value_reads(Reader(run), (torch.ones(2, 3),)) == []
