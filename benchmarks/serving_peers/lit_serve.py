"""Serve with LitServe, with as many workers as cores, each with one photograph at a time.

python -m benchmarks.serving_peers.lit_serve MODEL PORT WORKERS
"""

import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request

from benchmarks.serving_peers.answer import answer, open_model


class OneByOne(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.session = open_model(Path(sys.argv[1]))

    def decode_request(self, request: Request) -> Any:
        return request["file"].file.read()  # LitServe passes the form of the request

    def predict(self, x: bytes) -> dict[str, list[Any]]:
        return answer(self.session, x)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[2:])
    server = litserve.LitServer(OneByOne(), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
