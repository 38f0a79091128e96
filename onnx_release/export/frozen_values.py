"""Find where a network reads values that depend on its inputs into Python, which a trace fixes as a constant.

A branch on such a value takes one way for ever. At other sizes that shows, at other values it may not show on any
sample that there is.
"""

import ast
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from onnx_release.export.doctor.lines import user_file
from onnx_release.network.operators import eager_operators

READS = {"__bool__", "__int__", "__float__", "__index__", "__array__", "item", "tolist", "numpy", "equal", "allclose"}
# These take only the shape and the dtype of a tensor.
SHAPE_ONLY = ("_like", "new_")
IN_PLACE = re.compile("__setitem__|__i[a-z]+__|[a-z][a-z0-9_]*_")
# torch's own code between a read such as numpy.asarray(x) and the line that makes it.
PASSED = ("torch/_tensor.py", "torch/overrides.py")


class ValueReads(TorchFunctionMode):
    """Notes FILE:LINE of each read of a value that depends on the inputs, in a run of a network.

    Reads in torch's own modules do not count: they check, or take ways that give the same answers.
    """

    def __init__(self, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.dependent = WeakTensorKeyDictionary()
        for tensor in inputs:
            self.dependent[tensor] = None
        self.lines: dict[str, None] = {}

    def __torch_function__(  # torch's own name
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(tensor in self.dependent for tensor in given):
            return result
        if name in READS:
            line = calling_line()
            if line is not None and not only_raises(*line):
                self.lines[f"{user_file(line[0])}:{line[1]}"] = None
        elif not any(part in name for part in SHAPE_ONLY):
            changed = given[:1] if IN_PLACE.fullmatch(name) else []
            for leaf in (*changed, *tree_leaves(result)):
                if isinstance(leaf, torch.Tensor):
                    self.dependent[leaf] = None
        return result


def calling_line() -> tuple[str, int] | None:
    """Return the file and the line that called a function of torch; None if that is in torch itself."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(PASSED):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return (file, frame.f_lineno) if user_file(file) else None


@functools.cache
def only_raises(file: str, line: int) -> bool:
    """Return whether the line is an assertion or an `if` that only raises: without an error, nothing depends on it."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or line):
            return True
        if isinstance(node, ast.If) and node.lineno <= line <= (node.test.end_lineno or line):
            return not node.orelse and all(isinstance(inner, ast.Raise) for inner in node.body)
    return False


def value_reads(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[str]:
    """Run the network, and return FILE:LINE of each read of a value that depends on the inputs."""
    with eager_operators(), ValueReads(inputs) as reads, torch.no_grad():
        network(*inputs)
    return list(reads.lines)
