"""Make onnxscript's rewrite rules match a constant only if it is exactly the rule's.

By default they take 1e-8 for 0 and drop `x + 1e-8`, the guard of many divisions and logarithms: a row of zeros then
gives NaN where PyTorch gives a number.
"""

from typing import Any

import onnxscript.rewriter
from onnxscript.rewriter import pattern


def match_constants_exactly() -> None:
    """Change the default rules of this process, which torch.onnx applies to every export."""
    for rule in onnxscript.rewriter._DEFAULT_REWRITE_RULES:  # there is no public way to it
        # A rule may be a pattern in Python code that makes its own checks.
        nodes: Any = getattr(getattr(rule, "_target_pattern", None), "_nodes", ())
        for node in nodes:
            for value in node.inputs:
                if isinstance(value, pattern.Constant):
                    value._rel_tol = value._abs_tol = 0.0
