"""Express operators that torch.onnx translates wrongly, or for one size alone, by others that it translates rightly.

torch.onnx gathers the windows of an adaptive pooling at the indices of the example's size, and leaves the mean of a
scatter undivided (pytorch/pytorch#152419).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

ATEN = torch.ops.aten


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program without these operators, and the program itself if it has none of them."""
    used = {node.target for node in program.graph.nodes if node.op == "call_function" and needs(node)}
    table = {operator: make for operator, make in DECOMPOSITIONS.items() if operator in used}
    if not table:
        return program
    return program.run_decompositions(table)  # all other operators stay


def needs(node: torch.fx.Node) -> bool:
    """Return whether torch.onnx would translate the call wrongly."""
    if node.target is ATEN.scatter_reduce.two:
        return "mean" in (*node.args, *node.kwargs.values())
    if node.target not in DECOMPOSITIONS:
        return False
    sizes: Any = node.args[1]
    return any(size != 1 for size in sizes)  # 1 is the mean, which it knows


def adaptive_avg_pool(array: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Pool the last axes to `sizes`, one after the other: the mean over windows is the mean of means over each axis."""
    for place, size in enumerate(sizes):
        axis = array.ndim - len(sizes) + place
        array = pool_axis(array.movedim(axis, -1), size).movedim(-1, axis)
    return array


def pool_axis(array: torch.Tensor, size: int) -> torch.Tensor:
    """Return the means over `size` windows of the last axis, which PyTorch lays from floor(i n / size) to
    ceil((i + 1) n / size): https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html.
    """
    length = array.shape[-1]
    places = torch.arange(length, device=array.device)
    windows = torch.arange(size, device=array.device)
    starts = torch.div(windows * length, size, rounding_mode="floor")
    ends = torch.div((windows + 1) * length + size - 1, size, rounding_mode="floor")
    inside = (places[:, None] >= starts) & (places[:, None] < ends)
    return torch.matmul(array, inside.to(array.dtype)) / (ends - starts).to(array.dtype)


def scatter_reduce(
    array: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    source: torch.Tensor,
    reduce: str,
    include_self: bool = True,
) -> torch.Tensor:
    """Return `array` with the mean of what is scattered to each place, and of its own value with `include_self`."""
    if reduce != "mean" or not array.is_floating_point():
        return NotImplemented
    touched = torch.zeros_like(array).scatter_add(dim, index, torch.ones_like(source))
    if include_self:
        return array.scatter_add(dim, index, source) / (touched + 1)
    total = torch.zeros_like(array).scatter_add(dim, index, source)
    return torch.where(touched > 0, total / touched.clamp(min=1), array)


DECOMPOSITIONS: dict[Any, Callable[..., torch.Tensor]] = {
    ATEN.adaptive_avg_pool1d.default: adaptive_avg_pool,
    ATEN.adaptive_avg_pool2d.default: adaptive_avg_pool,
    ATEN.adaptive_avg_pool3d.default: adaptive_avg_pool,
    ATEN.scatter_reduce.two: scatter_reduce,
}
