"""A call of the model ends early once nobody waits for it. Each of these calls would run for centuries otherwise."""

import asyncio
import json
import time
from typing import cast

import numpy as np
import psutil
import pytest

from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.runtime.onnx_model import OnnxModel
from serving.engine import Engine
from serving.errors import ClientGoneError, DeadlineError
from serving.rows import find_rows
from tests.clock import Clock
from tests.endless import DECLARED, EVER, endless_model, endless_release
from tests.served import PATIENCE, head, serving

CALL_SECONDS = 0.2  # of CPU time in a worker, which only a call of the model takes


def asking(value):
    tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [value]}
    body = json.dumps({"inputs": [tensor]}).encode()
    kind = "application/json"
    return head("/v2/models/endless/infer", "POST", Content_Type=kind, Content_Length=len(body)) + body


def test_a_server_goes_on_when_the_client_of_an_endless_call_leaves(tmp_path):
    """Its one thread runs the call; what ONNX Runtime raises is not logged."""
    with serving(endless_release(tmp_path), threads=1, deadline=1000) as server:
        with server.connect() as client:
            [worker] = psutil.Process(server.process.pid).children()
            enough, end = worker.cpu_times().user + CALL_SECONDS, time.monotonic() + PATIENCE
            client.send(asking(EVER))
            while worker.cpu_times().user < enough:
                assert time.monotonic() < end, "no call of the model has begun"
        with server.connect() as client:
            answer = client.send(asking(3)).answer()
        assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [3])
        assert b"serving_model_seconds_count 1.0" in server.get("/metrics").content


async def until(happened):
    while not happened():
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [DeadlineError, ClientGoneError], ids=["late", "gone"])
def test_a_call_ends_with_the_last_of_its_requests(tmp_path, error):
    """One thread and two requests in one call; the first leaves, and the call goes on for the second."""
    spec = Spec.model_validate(DECLARED)
    model = OnnxModel(endless_model(tmp_path / "model.onnx"), spec, Runtime(provider="cpu", intra_threads=1))
    engine = Engine(model.run, find_rows(spec, 2), threads=1, gpu=False, queue=4, observe=lambda *_: None)

    async def main():
        loop = asyncio.get_running_loop()

        job = (lambda: {"x": np.full((1, 1), EVER, np.int64)}, dict)
        gone = [loop.create_future(), loop.create_future()]
        with engine.changed:  # the thread begins when both are there
            end = time.monotonic() + 1000
            tasks = [asyncio.create_task(engine.submit([job], end, left)) for left in gone]
            await asyncio.sleep(0)
        await until(lambda: engine.jobs.calls)
        [call] = engine.jobs.calls
        assert len(call.parts) == 2
        gone[0].set_result(None)
        with pytest.raises(ClientGoneError):
            await tasks[0]
        assert not call.options.terminate and call in engine.jobs.calls
        if error is DeadlineError:
            cast(Clock, loop).ahead = 2000
        else:
            gone[1].set_result(None)
        with pytest.raises(error):
            await tasks[1]
        assert await engine.drain(30)  # the thread has nothing left to do

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(main())
