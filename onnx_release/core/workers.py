"""Work on samples on all cores, with results in order, so that a sum is the same on any number of cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from onnx_release.core.hardware import available_cores

Given = TypeVar("Given")
Found = TypeVar("Found")


def map_in_order(work: Callable[[Given], Found], items: Sequence[Given], chunk: int) -> Iterator[Found]:
    """Yield the result of `work` for every item. At most `chunk` are under way at once, which bounds the memory."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(items), chunk):
            yield from pool.map(work, items[start : start + chunk])
