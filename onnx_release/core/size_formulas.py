"""Evaluate the size of an axis that follows from other sizes, such as `past + sequence`."""

import ast
import functools
import operator
from collections.abc import Callable, Mapping

OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def is_formula(axis: int | str) -> bool:
    """Return whether an axis of a shape is a formula, and not a number or the name of a size."""
    return isinstance(axis, str) and not axis.isidentifier()


def sizes_in(axis: str) -> list[str]:
    """Return the names of the sizes in a formula, or the name itself.

    Raises ValueError for anything but names, whole numbers, parentheses and + - * //, which divides by a number.
    """
    if not is_formula(axis):
        return [axis]
    try:
        tree = parsed(axis)
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        evaluate(tree, dict.fromkeys(names, 1))
    except (SyntaxError, ValueError) as cause:
        raise ValueError(
            f"{axis!r} is neither the name of a size (a letter, then letters, digits and _) nor a formula of such "
            "names and whole numbers with + - * and // by a positive number"
        ) from cause
    if not names:
        raise ValueError(f"the size {axis!r} is a number: write it without quotes")
    return list(dict.fromkeys(names))


def size_of(axis: str, sizes: Mapping[str, int]) -> int:
    """Return the size of an axis, a name or a formula, from the sizes of its names.

    Raises KeyError for a name that has no size.
    """
    return evaluate(parsed(axis), sizes) if is_formula(axis) else sizes[axis]


@functools.cache
def parsed(axis: str) -> ast.expr:
    """Return the parts of a formula. Shapes are worked out for every batch, so each formula is parsed once."""
    return ast.parse(axis, mode="eval").body


def evaluate(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """Return the value of a part of a formula. Raises ValueError for a part that formulas do not have."""
    match node:
        case ast.Name():
            return sizes[node.id]
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub()):
            return -evaluate(node.operand, sizes)
        case ast.BinOp(op=ast.FloorDiv(), right=right) if not isinstance(right, ast.Constant) or not right.value:
            raise ValueError("a quotient by a size, or by 0, may have no value")
        case ast.BinOp() if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](evaluate(node.left, sizes), evaluate(node.right, sizes))
    raise ValueError(f"{ast.unparse(node)} is no part of a formula")
