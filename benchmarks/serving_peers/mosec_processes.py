"""mosec, with a process for each core that does all of the work, one photograph at a time or up to BATCH.

    python -m benchmarks.serving_peers.mosec_processes MODEL PROCESSES BATCH --port PORT

mosec hands a worker the body alone and not its headers, so the body is the photograph itself and no form: less work
than the others have.
"""

import sys
from pathlib import Path
from typing import Any

import mosec

from benchmarks.serving_peers.answer import answer, answers, open_model


class Classify(mosec.Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.session = open_model(Path(sys.argv[1]))

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, list[Any]]:
        return answer(self.session, data)


class ClassifyAll(Classify):
    def forward(self, data: list[bytes]) -> list[dict[str, list[Any]]]:  # type: ignore[override]  # as mosec calls it
        return answers(self.session, data)


if __name__ == "__main__":
    processes, batch = map(int, sys.argv[2:4])
    server = mosec.Server()
    # No longer than it takes to see what has come: with nothing to wait for, a photograph would be late by this.
    server.append_worker(ClassifyAll if batch > 1 else Classify, num=processes, max_batch_size=batch, max_wait_time=1)
    server.run()
