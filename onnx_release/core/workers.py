"""Work on samples on all cores, with results in order: who sums them up gets the same sum on any number of cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from onnx_release.core.hardware import available_cores

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(work: Callable[[Item], Found], items: Sequence[Item], chunk: int) -> Iterator[Found]:
    """`work` of every item; `chunk` of them are under way or waiting at once, which bounds the memory."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(items), chunk):
            yield from pool.map(work, items[start : start + chunk])
