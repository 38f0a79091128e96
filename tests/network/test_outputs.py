"""Nested results, flattened and matched with the declared outputs."""

import dataclasses
from collections import namedtuple

import pytest
import torch

from onnx_release.core.errors import NetworkError
from onnx_release.network.outputs import take_outputs

A, B, C = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    state: tuple[torch.Tensor, ...]
    loss: None = None


Pair = namedtuple("Pair", "values indices")


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, ["y"]),
        ((A, (B, C)), ["a", "b", "c"]),
        ((A, None, [B, (C,)]), ["a", "b", "c"]),
        ((C, (A, B)), ["1.0", "1.1"]),
        ({"b": B, "extra": C, "a": A}, ["a", "b"]),
        ({"state": {"h": B, "c": C}, "logits": A}, ["logits", "h", "c"]),
        ({"state": (B, C), "logits": A}, ["logits", "state.0", "state.1"]),
        (Result(A, (B, C)), ["logits", "state.0", "state.1"]),
        (Pair(A, B), ["values", "indices"]),
        (Pair(A, B), ["best", "which"]),
        ((A, {"aux": B}), ["y", "aux"]),
        ((B, A), ["1", "0"]),
        (torch.return_types.max((A, B)), ["best", "which"]),
        ((A, {"h": B}), ["y", "h_out"]),
        ((A, {"state": {"h": B}}), ["y", "state.h_out"]),
        ((A, {"h": B}), ["0", "1.h_out"]),
        ({"h_out": A, "last": {"h": B}}, ["h_out", "h"]),
        (({"h_out": B}, {"h": A}), ["h", "h_out"]),
        ({"h": A, "last": {"h_out": B}}, ["h_out", "last.h_out"]),
        (({"h": A}, B), ["h", "h_out"]),
    ],
    ids=str,
)
def test_each_name_gets_its_tensor(result, names):
    assert [tensor.item() for tensor in take_outputs(result, names)] == [1, 2, 3][: len(names)]


@pytest.mark.parametrize(
    ("result", "names", "message"),
    [
        (
            (A, (B, C)),
            ["y", "h"],
            r"returns 3 outputs, spec\.yaml declares 2: y, h\. It gives 0 \[1\], 1\.0 \[1\], 1\.1 \[1\]\. "
            r'Declare all of them in this order; or take some .* such as "0", "1\.0"$',
        ),
        (A, ["y", "h"], r"returns 1 output, spec\.yaml declares 2: y, h\. .* Declare only these"),
        ({"a": A, "b": (B, C)}, ["a", "b"], r"has no output b, which spec\.yaml declares; it gives a, b\.0, b\.1$"),
        ({"logits": A}, ["y"], r"has no output y, .*; it gives logits$"),
        (({"h": A}, {"h": B}), ["h", "y"], r"has no output h, y, .*; it gives 0\.h, 1\.h$"),
        (({"h": A}, {"h": B}), ["h_out"], r"has no output h_out, .*; it gives 0\.h, 1\.h$"),
        ({"h": A}, ["h", "h_out"], r"has no output h_out, .*; it gives h$"),
        (None, ["y"], r"It gives no tensor"),
    ],
    ids=str,
)
def test_what_is_not_clear_is_refused_with_what_there_is(result, names, message):
    with pytest.raises(NetworkError, match=message):
        take_outputs(result, names)
