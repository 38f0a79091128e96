"""mosec, with a process for each core that does all of the work.

    python -m benchmarks.serving_peers.mosec_processes MODEL PROCESSES --port PORT

mosec hands a worker the body alone and not its headers, so the body is the photograph itself and no form: less work
than the others have.
"""

import sys
from pathlib import Path
from typing import Any

import mosec

from benchmarks.serving_peers.answer import answer, open_model


class Classify(mosec.Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.session = open_model(Path(sys.argv[1]))

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, list[Any]]:
        return answer(self.session, data)


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Classify, num=int(sys.argv[2]))
    server.run()
