"""Express operators that torch.onnx translates wrongly, for one size alone or not at all, by others that it knows.

torch.onnx gathers the windows of an adaptive pooling at the indices of the example's size, and leaves the mean of a
scatter undivided (pytorch/pytorch#152419). It has no view that negates, which the imaginary part of a conjugate is to
PyTorch. ONNX Runtime has no Where between booleans.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

ATEN = torch.ops.aten
WHERES = (ATEN.where.self, ATEN.where.ScalarSelf, ATEN.where.ScalarOther, ATEN.where.Scalar)


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program without these operators, and the program itself if it has none of them."""
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    nodes = [node for graph in graphs for node in graph.nodes]  # those of the branches and of the bodies of loops too
    used = {node.target for node in nodes if node.op == "call_function" and needs(node)}
    if ATEN.imag.default in used:  # torch takes it apart itself, and only then is the table read
        used.add(ATEN._neg_view.default)
    table = {operator: make for operator, make in DECOMPOSITIONS.items() if operator in used}
    if not table:
        return program
    return program.run_decompositions(table)  # all other operators stay


def needs(node: torch.fx.Node) -> bool:
    """Return whether torch.onnx would translate the call wrongly or not at all."""
    if node.target is ATEN.scatter_reduce.two:
        return "mean" in (*node.args, *node.kwargs.values())
    if node.target in WHERES:
        return node.meta["val"].dtype == torch.bool
    if node.target in (ATEN.amax.default, ATEN.amin.default):
        return len(node.args) < 2 or not node.args[1]
    if node.target is ATEN.imag.default:
        operand: Any = node.args[0]
        return bool(operand.meta["val"].is_conj())
    if node.target not in DECOMPOSITIONS or node.target in (ATEN.searchsorted.Tensor, ATEN._neg_view.default):
        return node.target in DECOMPOSITIONS
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


def where(condition: torch.Tensor, one: torch.Tensor | float, other: torch.Tensor | float) -> torch.Tensor:
    """Choose between booleans by logic; all other choices stay."""
    one, other = (torch.full_like(condition, part) if isinstance(part, bool) else part for part in (one, other))
    if any(not isinstance(part, torch.Tensor) or part.dtype != torch.bool for part in (one, other)):
        return NotImplemented
    return (condition & one) | (~condition & other)


def amax(array: torch.Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> torch.Tensor:
    """Return the largest value over all axes, which are named."""
    return torch.amax(array, list(range(array.ndim)), keepdim) if array.ndim and not dim else NotImplemented


def amin(array: torch.Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> torch.Tensor:
    """Return the smallest value over all axes, which are named."""
    return torch.amin(array, list(range(array.ndim)), keepdim) if array.ndim and not dim else NotImplemented


def searchsorted(
    knots: torch.Tensor,
    values: torch.Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return how many of the sorted knots are below each value, or with `right` not above it."""
    if sorter is not None:
        return NotImplemented
    upper = right or side == "right"
    rows, wanted = knots[..., None, :], values[..., None]
    below = rows <= wanted if upper else rows < wanted
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def negative(array: torch.Tensor) -> torch.Tensor:
    """Return the negative, in the place of a view of it."""
    return -array


DECOMPOSITIONS: dict[Any, Callable[..., torch.Tensor]] = {
    ATEN.adaptive_avg_pool1d.default: adaptive_avg_pool,
    ATEN.adaptive_avg_pool2d.default: adaptive_avg_pool,
    ATEN.adaptive_avg_pool3d.default: adaptive_avg_pool,
    ATEN.scatter_reduce.two: scatter_reduce,
    **dict.fromkeys(WHERES, where),
    ATEN.amax.default: amax,
    ATEN.amin.default: amin,
    ATEN.searchsorted.Tensor: searchsorted,
    ATEN._neg_view.default: negative,
}
