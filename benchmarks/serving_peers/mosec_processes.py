"""Serve with mosec, with a process for each core that does all of the work, one photograph at a time or up to BATCH.

    python -m benchmarks.serving_peers.mosec_processes MODEL PROCESSES BATCH --port PORT

mosec gives a worker only the body and not its headers, so the body is the photograph itself and no form: less work than
for the others.
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
    # The shortest wait: a photograph that comes alone would be late by this time.
    server.append_worker(ClassifyAll if batch > 1 else Classify, num=processes, max_batch_size=batch, max_wait_time=1)
    server.run()
