"""Give new values and nodes of a graph names that none of its own has."""

from collections.abc import Iterable, Iterator

from onnx import ModelProto

from onnx_release.graph.graph import graphs


class FreshNames:
    """The names that a graph has, of its values or of its nodes, and those that were given since."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def give(self, name: str) -> str:
        """Return `name`, or one like it if it is taken already, and keep it from being given again."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}_{count}", count + 1
        self.taken.add(found)
        return found


def all_names(model: ModelProto) -> Iterator[str]:
    """Yield the names of all values, also those in nested graphs."""
    for graph in graphs(model.graph):
        yield from (tensor.name for tensor in graph.initializer)
        yield from (value.name for value in (*graph.input, *graph.output))
        for node in graph.node:
            yield from (*node.input, *node.output)
