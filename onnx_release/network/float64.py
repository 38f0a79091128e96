"""Run a network in float64 without its help: every operator computes in it, whatever the code of forward() asks for.

`network.to(torch.float64)` is not enough. It leaves constants that forward() makes, `.float()`, plain attributes and
whatever casts to a dtype by name in float32, and it drops the imaginary parts of complex buffers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_only

from onnx_release.network.operators import OperatorMode, written_tensors

WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
NARROWER = {torch.float64: torch.float32, torch.complex128: torch.complex64}
# They read or write the bits of numbers, which another dtype has at other places.
OF_BITS = ("aten::view", "aten::nextafter")


class Float64Mode(OperatorMode):
    """Runs every operator in float64, and in complex128 where it is complex.

    `without_float64` collects the operators that failed there: their result is that of float32.
    """

    def __init__(self, without_float64: dict[str, None]) -> None:
        super().__init__()
        self.without_float64 = without_float64
        # By storage, since views of a tensor must stay views of its wider copy. The storages are kept, or another
        # could take the same place in memory.
        self.copies: dict[int, tuple[torch.UntypedStorage, torch.Tensor]] = {}

    def run_operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator on wider copies of its arguments, or in float32 where that fails."""
        name = func._schema.name
        if name == "aten::_assert_tensor_metadata":  # torch.export wrote the old dtypes down
            return None
        wide_args, wide_kwargs = tree_map(self.widen, (args, kwargs))
        if name in OF_BITS and (name != "aten::view" or func._overloadname == "dtype"):
            return self.run_in_float32(func, wide_args, wide_kwargs)
        try:
            result = func(*wide_args, **wide_kwargs)
        except Exception as cause:  # an operator may raise anything for a dtype that it lacks
            try:
                result = self.run_in_float32(func, wide_args, wide_kwargs)
            except Exception:
                raise cause from None  # it is not about the dtype
            self.without_float64.setdefault(str(func))
        return tree_map_only(torch.Tensor, wider_copy, result)

    def widen(self, value: Any) -> Any:
        """Return a dtype or a tensor in float64, and anything else as it is."""
        if isinstance(value, torch.dtype):
            return WIDER.get(value, value)
        if not isinstance(value, torch.Tensor) or value.dtype not in WIDER:
            return value
        if value.layout is not torch.strided or value.is_meta or value.is_conj() or value.is_neg():
            return wider_copy(value)
        storage = value.untyped_storage()
        known = self.copies.get(storage._cdata)
        if known is None or known[1].numel() * value.element_size() != storage.nbytes():
            whole = torch.empty(0, dtype=value.dtype).set_(storage)
            known = self.copies[storage._cdata] = storage, wider_copy(whole)
        return torch.as_strided(known[1], value.shape, value.stride(), value.storage_offset())

    def run_in_float32(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator on arguments rounded to float32, and return its result in float64."""
        rounded: dict[int, torch.Tensor] = {}

        def narrow(value: Any) -> Any:
            if isinstance(value, torch.dtype):
                return NARROWER.get(value, value)
            if not isinstance(value, torch.Tensor) or value.dtype not in NARROWER:
                return value
            if id(value) not in rounded:
                rounded[id(value)] = value.to(NARROWER[value.dtype])
            return rounded[id(value)]

        narrow_args, narrow_kwargs = tree_map(narrow, (args, kwargs))
        result = func(*narrow_args, **narrow_kwargs)
        changed = {}
        for tensor in written_tensors(func, args, kwargs):
            if id(tensor) in rounded:
                tensor.copy_(rounded[id(tensor)])
                changed[id(rounded[id(tensor)])] = tensor
        return tree_map_only(torch.Tensor, lambda made: changed.get(id(made), wider_copy(made)), result)


def wider_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float64 or complex128; one that is neither real nor complex stays as it is."""
    return tensor.to(WIDER.get(tensor.dtype, tensor.dtype))


@contextmanager
def in_float64(network: torch.nn.Module) -> Iterator[None]:
    """Put the weights of the network, and torch's default dtype, into float64 for the block, and back afterwards.

    Each weight is in memory only once, in one dtype or the other.
    """
    wide = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers()) if tensor.dtype in NARROWER}
    default = torch.get_default_dtype()

    def restored(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.data_ptr() in wide else tensor.to(NARROWER.get(tensor.dtype, tensor.dtype))

    try:
        torch.set_default_dtype(torch.float64)  # of 1 / integers, of torch.zeros(3)
        network._apply(wider_copy)  # as network.to() does, which keeps shared weights shared
        yield
    finally:
        torch.set_default_dtype(default)
        network._apply(restored)
