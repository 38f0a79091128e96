"""Watch an eager run of a network operator by operator."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo  # with it, `eager_operators` keeps torch.cond from torch.compile
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from onnx_release.export.doctor.lines import running_functions, running_line
from onnx_release.network.operators import OperatorMode, batch_norm_trains, eager_operators, written_tensors

CONTAINERS = (dict, OrderedDict, list, set)
DOUBLE = (torch.float64, torch.complex128)


def run_eagerly(network: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Run the network on copies of the inputs, which it may change in place, and return its outputs as a list."""
    inputs = tuple(tensor.clone() for tensor in inputs)
    # Not inference_mode: tensors that the network keeps from such a run could not be exported.
    with torch.no_grad(), eager_operators():
        result = network(*inputs)
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values() if isinstance(result, Mapping) else result)


def storage(tensor: torch.Tensor) -> int:
    """Return the same number for all tensors that share memory."""
    return tensor.untyped_storage()._cdata


def network_tensors(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer under each of its names."""
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


class Watch(OperatorMode):
    """What the operators of a run did; a line is FILE:LINE, or None in a network of torch's modules only.

    `doubles`: the operator that first made float64, by line; single numbers do not count. `random`: the operator that
    drew random numbers, by line. `batch_statistics`: the lines of batch norms that compute mean and variance from the
    batch. `bool_where`: the lines that choose between booleans. `read`: the storages that operators read. `written`:
    for each of the network's storages that was written to, the tensor, a copy of its old content, and the line.
    `made`: the line that made a tensor.
    """

    def __init__(self, network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.batch = inputs[0].shape[0] if inputs[0].ndim else 1
        self.owned = {storage(tensor) for _, tensor in network_tensors(network)}
        self.doubles: dict[str | None, str] = {}
        self.random: dict[str | None, str] = {}
        self.batch_statistics: dict[str | None, None] = {}
        self.bool_where: dict[str | None, None] = {}
        self.read: set[int] = set()
        self.written: dict[int, tuple[torch.Tensor, torch.Tensor, str | None]] = {}
        self.made = WeakTensorKeyDictionary()
        self.known_doubles = WeakTensorKeyDictionary()
        for tensor in (*inputs, *(tensor for _, tensor in network_tensors(network))):
            self.known_doubles[tensor] = None

    def run_operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        line = running_line(CALLERS)
        written = written_tensors(func, args, kwargs)
        for tensor in written:
            if storage(tensor) in self.owned and storage(tensor) not in self.written:
                self.written[storage(tensor)] = (tensor, tensor.detach().clone(), line)
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.read |= {storage(tensor) for tensor in taken if not any(tensor is other for other in written)}

        seeded = torch.Tag.nondeterministic_seeded in func.tags
        before = torch.get_rng_state() if seeded else None
        result = func(*args, **kwargs)
        # The tag is not enough: attention has it without dropout too.
        if before is not None and (kwargs.get("generator") or not torch.equal(before, torch.get_rng_state())):
            self.random.setdefault(line, random_source(str(func)))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for tensor in made:
            self.made[tensor] = line
        self.note_doubles(str(func), line, taken, made)
        name = func._schema.name
        if "batch_norm" in name and batch_norm_trains(func, args) and not self.is_instance_norm(args[0]):
            self.batch_statistics[line] = None
        if name == "aten::where" and any(tensor.dtype == torch.bool for tensor in made):
            self.bool_where[line] = None
        return result

    def run_higher_order(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the branch of a torch.cond that is not taken too, for what it reads."""
        if str(func) == "cond":
            taken, true_branch, false_branch, operands = (*args, *kwargs.values())
            (false_branch if taken else true_branch)(*operands)
        return func(*args, **kwargs)

    def is_instance_norm(self, given: torch.Tensor) -> bool:
        """Return whether a batch norm computes an instance norm, with the whole batch as the channels of one item."""
        return "instance_norm" in running_functions(CALLERS) or (self.batch > 1 and given.shape[0] == 1)

    def note_doubles(
        self, operator: str, line: str | None, taken: list[torch.Tensor], made: list[torch.Tensor]
    ) -> None:
        """Note where float64 begins, but not where it only continues, which would be every line after it."""
        before = [tensor for tensor in taken if tensor.dtype in DOUBLE]
        unknown = [tensor for tensor in before if tensor not in self.known_doubles]
        after = [tensor for tensor in made if tensor.dtype in DOUBLE]
        # A single number does not turn float32 into float64.
        if any(tensor.dim() for tensor in (unknown if before else after)):
            self.doubles.setdefault(line, operator)
        for tensor in (*unknown, *after):
            if tensor.dim():
                self.known_doubles[tensor] = None


class OperatorCounter(OperatorMode):
    """Counts how many operators each FILE:LINE of a run calls."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def run_operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        line = running_line(CALLERS)
        if line:
            self.lines[line] += 1
        return func(*args, **kwargs)


CALLERS = {run_eagerly.__code__}


def random_source(operator: str) -> str:
    """Return "dropout", or the operator that draws random numbers."""
    dropout = any("dropout" in name for name in running_functions(CALLERS)) or "dropout" in operator
    return "dropout" if dropout else operator


@contextmanager
def keeping_state(network: torch.nn.Module, watch: Watch) -> Iterator[None]:
    """Restore the network after the block: written tensors, replaced buffers, cached attributes, and hooks."""
    before = [(module, dict(module.__dict__)) for module in network.modules()]
    # With the attributes go the dicts and lists in them: transformers notes in one that it has put a hook into another.
    contents = [
        (value, value.copy()) for _, attributes in before for value in attributes.values() if type(value) in CONTAINERS
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for value, content in contents:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(content)
        with torch.no_grad():
            for tensor, original, _ in watch.written.values():
                tensor.copy_(original)
