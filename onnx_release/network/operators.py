"""Follow the operators of a running network, those inside torch.cond and its kin too."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.nn.modules import transformer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class OperatorMode(TorchDispatchMode):
    """A dispatch mode that calls `run_operator` for every operator, in the branches of torch.cond as well.

    torch refuses operators that take functions (torch.cond, while_loop, scan) in a plain dispatch mode. Here they run
    as in eager mode, on the functions that they take, each inside this mode.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(  # torch's own name
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if isinstance(func, HigherOrderOperator):
            args, kwargs = tree_map(self.inside, (args, kwargs or {}))
            return self.run_higher_order(func, args, kwargs)
        return self.run_operator(func, args, kwargs or {})

    def inside(self, value: Any) -> Any:
        """Return a function that runs inside this mode, and any other value as it is."""
        if isinstance(value, torch.Tensor) or not callable(value):
            return value

        def function(*args: Any) -> Any:
            with self:
                return value(*args)

        return function

    def run_operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator and return its result."""
        return func(*args, **kwargs)

    def run_higher_order(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on functions, which are inside this mode, and return its result."""
        return func(*args, **kwargs)


def written_tensors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the arguments that the operator changes in place."""
    found = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    if func._schema.name == "aten::native_batch_norm" and batch_norm_trains(func, args):
        found += [value for value in args[3:5] if value is not None]  # its schema does not say so
    return found


def batch_norm_trains(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a batch norm operator computes mean and variance from the batch."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.name in ("training", "train") and index < len(args):
            return bool(args[index])
    return False


@contextmanager
def unfused_layers() -> Iterator[None]:
    """Turn off in the block what torch chooses in its Transformer layers to be faster: a fused operator, and a hint.

    The fused operator of a whole layer, which torch takes outside of training, pads its outputs with zeros where a mask
    hides a token, which no exported network does (pytorch/pytorch#110557). The hint is that a mask is causal: torch
    looks at the mask's values for it, which no capture can follow, and without it applies the mask itself.
    """
    fused, hint = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = given_hint
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        transformer._detect_is_causal_mask = hint


def given_hint(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Return whether the caller said that the mask is causal, without a look at its values."""
    return is_causal is True


@contextmanager
def eager_operators() -> Iterator[None]:
    """Run a network operator by operator in the block, in eager mode and without fused layers.

    torch.cond calls torch.compile, which a dispatch mode makes give up, and it then remembers that for the next export.
    """
    # The import takes seconds, and without it nothing was compiled.
    compiler = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with unfused_layers(), compiler:
        yield
