"""Measure the uploads a second that one thread for each core reaches with the bare session, without any server.

    python -m benchmarks.serving_peers.bare MODEL SECONDS THREADS

Each thread takes the evaluation photographs in turn. Prints JSON: `rate`, uploads a second of all threads.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving_peers.answer import answer, open_model
from models.mobilenet_v2 import data
from onnx_release.core.paths import ModelFiles

WARM_UP = 2.0  # seconds


def main(model: Path, seconds: float, threads: int) -> None:
    session = open_model(model)
    photographs = list(data.encoded(ModelFiles("mobilenet_v2").raw))

    def rate(thread: int, seconds: float) -> float:
        done = thread * len(photographs) // threads  # so that the threads do not take the same ones at once
        first, start = done, time.perf_counter()
        while time.perf_counter() - start < seconds:
            answer(session, photographs[done % len(photographs)])
            done += 1
        return (done - first) / (time.perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(rate, range(threads), [WARM_UP] * threads))
        print(json.dumps({"rate": sum(pool.map(rate, range(threads), [seconds] * threads))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
