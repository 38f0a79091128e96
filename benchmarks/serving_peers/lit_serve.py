"""LitServe, with as many workers as there are cores, and a batch as its documentation does it where one is asked for.

python -m benchmarks.serving_peers.lit_serve MODEL PORT WORKERS MAX_BATCH
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.serving_peers.answer import answer, open_model
from models.mobilenet_v2 import data

BATCH_TIMEOUT = 0.01  # seconds, as in its guide to batching


class OneByOne(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.session = open_model(Path(sys.argv[1]))

    def decode_request(self, request: Request) -> Any:
        return request["file"].file.read()  # by now it is the form of the request

    def predict(self, x: bytes) -> dict[str, list[Any]]:
        return answer(self.session, x)


class Batched(OneByOne):
    def decode_request(self, request: Request) -> Any:
        return data.preprocess(data.decode(request["file"].file.read()))["input"]

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(["logits"], {"input": x})[0]

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[Any]]:
        prediction = data.postprocess({"logits": output})
        return {"labels": prediction.labels.tolist(), "scores": prediction.scores.tolist()}


if __name__ == "__main__":
    port, workers, batch = map(int, sys.argv[2:])
    api = OneByOne() if batch == 1 else Batched(max_batch_size=batch, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
