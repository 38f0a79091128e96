"""The rows of a request: where they are, and that calls of any size give each its own outputs."""

import asyncio
import threading
from functools import partial

import numpy as np
import pytest

from onnx_release.core.errors import GraphError
from onnx_release.core.spec import Spec
from serving.engine import Engine
from serving.errors import BusyError, ClientGoneError, RequestError
from serving.rows import find_rows
from serving.tensors import ALIGNMENT


def make_spec(inputs, outputs, batch="batch", derived=()):
    """A spec of float32 tensors; all symbolic sizes go from 1 to 64."""
    used = {axis for shape in (*inputs, *outputs) for axis in shape if isinstance(axis, str)} - {*derived}
    tensors = [
        [{"name": f"{kind}{number}", "dtype": "float32", "shape": shape} for number, shape in enumerate(shapes)]
        for kind, shapes in (("x", inputs), ("y", outputs))
    ]
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {name: {"min": 1, "max": 64, "example": 2} for name in used},
            "derived": list(derived),
            "batch": batch,
            "inputs": tensors[0],
            "outputs": tensors[1],
        }
    )


PLAIN = make_spec([["batch", 2]], [["batch", 3]])
RECURRENT = make_spec([["time", "batch", 2], ["batch", 2]], [["time", "batch", 3], ["batch", 3]])
CONTEXT = make_spec([["batch", 2], [4]], [["batch", 3]])


@pytest.mark.parametrize(
    ("spec", "most", "split", "shared"),
    [
        (PLAIN, 4, True, True),
        (RECURRENT, 4, True, True),
        (CONTEXT, 4, True, False),
        (make_spec([["n", 2]], [["n", 3]], batch="n"), 4, True, True),
        (make_spec([["batch", 2]], [["batch", 3], ["found", 4]], derived=["found"]), 1, False, False),
        (make_spec([["batch", 2]], [["batch", "batch"]]), 1, False, False),
        (make_spec([["time", 2]], [["time", 3]], batch=None), 1, False, False),
        (make_spec([[1, 2]], [[1, 3]], batch="auto"), 1, False, False),
    ],
    ids=["first axis", "any axis", "an input for all", "another name", "found", "pairs", "no batch", "one"],
)
def test_rows_are_divided_where_every_output_has_them(spec, most, split, shared):
    rows = find_rows(spec, 4)
    assert (rows.most, rows.split, rows.shared) == (most, split, shared)


def test_a_call_has_no_more_rows_than_the_spec_allows():
    assert find_rows(PLAIN, 1000).most == 64


def random(spec, rows, time=3):
    sizes = {"batch": rows, "time": time}
    generator = np.random.default_rng(rows)
    return {
        tensor.name: generator.random([sizes.get(axis, axis) for axis in tensor.shape], np.float32)
        for tensor in spec.inputs
    }


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 31])
@pytest.mark.parametrize("spec", [PLAIN, RECURRENT, CONTEXT], ids=["first axis", "any axis", "an input for all"])
def test_what_is_divided_and_joined_is_what_it_was(spec, rows):
    found, inputs = find_rows(spec, 4), random(spec, rows)
    parts = found.divide(inputs)
    assert [found.count(part) for part in parts] == [4] * (rows // 4) + ([rows % 4] if rows % 4 else [])
    for name, whole in found.join_inputs(parts).items():
        assert whole.tobytes() == inputs[name].tobytes()
    for array in (array for part in parts for array in part.values()):
        assert array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0


class Recurrent:
    """A model of RECURRENT that says in y0 how many rows each call had, and gives y1 from the same row of x1."""

    def __init__(self):
        self.calls, self.lock = [], threading.Lock()

    def __call__(self, inputs, options=None):
        rows = inputs["x1"].shape[0]
        with self.lock:
            self.calls.append(rows)
        first = np.repeat(inputs["x0"].sum(2, keepdims=True), 3, 2)
        return {"y0": first, "y1": np.repeat(inputs["x1"].sum(1, keepdims=True), 3, 1)}


def run(model, spec, *requests, wanted=4, queue=64, gpu=False, threads=2):
    """The outputs of requests that are there at once."""
    engine = Engine(model, find_rows(spec, wanted), threads=threads, gpu=gpu, queue=queue, observe=lambda *_: None)

    async def main():
        gone = asyncio.get_running_loop().create_future()
        jobs = (engine.submit([(partial(dict, inputs), dict)], float("inf"), gone) for inputs in requests)
        try:
            return [job.value for [job] in await asyncio.gather(*jobs)]
        finally:
            assert await engine.drain(30)
            assert engine.pending == 0

    return asyncio.run(main())


@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
def test_requests_of_any_number_of_rows_get_their_own_outputs(gpu):
    model = Recurrent()
    requests = [random(RECURRENT, rows) for rows in (1, 9, 2, 33, 4, 7)]
    for inputs, outputs in zip(requests, run(model, RECURRENT, *requests, gpu=gpu), strict=True):
        for name, expected in Recurrent()(inputs).items():
            assert outputs[name].tobytes() == expected.tobytes()
    assert max(model.calls) == 4
    assert sum(model.calls) == sum((1, 9, 2, 33, 4, 7)) or gpu


def test_each_row_runs_alone_where_a_call_has_one():
    model = Recurrent()
    run(model, RECURRENT, random(RECURRENT, 5), wanted=1)
    assert model.calls == [1] * 5


def test_an_input_for_all_rows_goes_into_every_call_and_not_into_another_request_s():
    calls = []

    def model(inputs, options):
        calls.append(len(inputs["x0"]))
        return {"y0": inputs["x0"][:, :1] + inputs["x1"][:3]}

    requests = [random(CONTEXT, rows) for rows in (1, 6, 1, 1)]
    for inputs, outputs in zip(requests, run(model, CONTEXT, *requests), strict=True):
        assert outputs["y0"].tobytes() == (inputs["x0"][:, :1] + inputs["x1"][:3]).tobytes()
    assert sorted(calls) == [1, 1, 1, 2, 4]


def test_outputs_that_are_not_of_rows_are_those_of_one_call():
    spec = make_spec([["batch", 2]], [["found", 4]], derived=["found"])

    def model(inputs, options):
        return {"y0": np.full((2, 4), len(inputs["x0"]))}

    [outputs] = run(model, spec, random(spec, 9))
    assert outputs["y0"].tolist() == [[9] * 4] * 2


def test_outputs_that_do_not_fit_together_come_from_one_call():
    """The size `found` follows from the values of all rows of a call."""
    spec = make_spec([["batch", 2]], [["batch", "found"]], derived=["found"])

    def model(inputs, options):
        found = int(inputs["x0"].max())
        return {"y0": np.zeros((len(inputs["x0"]), found), np.float32)}

    inputs = {"x0": np.array([[number, 0] for number in range(1, 11)], np.float32)}
    [outputs] = run(model, spec, inputs)
    assert outputs["y0"].shape == (10, 10)


@pytest.mark.parametrize("ends", ["a part fails", "its client leaves"])
def test_the_engine_goes_on_when_a_request_ends_before_all_of_its_parts(ends):
    """The second of three parts still runs when the request has ended, and the third never begins."""
    both, go_on, values = threading.Barrier(3), threading.Event(), []

    def model(inputs, options):
        first = inputs["x0"][0, 0]
        values.append(first)
        if first < 2:
            both.wait(30)
            if first == 0 and ends == "a part fails":
                raise GraphError("no")
            assert go_on.wait(30)
            if ends == "a part fails":
                raise GraphError("no")
        return {"y0": inputs["x0"]}

    engine = Engine(model, find_rows(PLAIN, 4), threads=2, gpu=False, queue=64, observe=lambda *_: None)
    inputs = {"x0": np.repeat(np.arange(12, dtype=np.float32) // 4, 2).reshape(12, 2)}

    async def main():
        gone = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(engine.submit([(partial(dict, inputs), dict)], float("inf"), gone))
        await asyncio.to_thread(both.wait, 30)
        if ends == "its client leaves":
            gone.set_result(None)
        with pytest.raises(GraphError if ends == "a part fails" else ClientGoneError):
            await task
        assert engine.pending == (4 if ends == "a part fails" else 8)
        go_on.set()
        never = asyncio.get_running_loop().create_future()
        others = {"x0": np.full((5, 2), 3, np.float32)}
        assert len(await engine.submit([(partial(dict, others), dict)] * 4, float("inf"), never)) == 4
        assert await engine.drain(30)
        assert engine.pending == 0
        assert all(thread.is_alive() or engine.stopped for thread in engine.threads)

    asyncio.run(main())
    assert 2 not in values


def test_the_queue_counts_rows():
    with pytest.raises(RequestError, match="9 items, more than the queue of 8") as refused:
        run(Recurrent(), RECURRENT, random(RECURRENT, 9), queue=8)
    assert refused.value.status == 413
    assert len(run(Recurrent(), RECURRENT, random(RECURRENT, 8), queue=8)) == 1


def test_a_request_whose_rows_do_not_fit_beside_those_of_others_is_refused():
    entered, go_on = threading.Event(), threading.Event()

    def model(inputs, options):
        entered.set()
        assert go_on.wait(30)
        return {"y0": inputs["x0"]}

    engine = Engine(model, find_rows(PLAIN, 4), threads=2, gpu=True, queue=8, observe=lambda *_: None)

    async def main():
        gone = asyncio.get_running_loop().create_future()

        def submit(rows):
            return asyncio.create_task(engine.submit([(lambda: random(PLAIN, rows), dict)], float("inf"), gone))

        first = submit(5)
        while not entered.is_set():
            await asyncio.sleep(0)
        with pytest.raises(BusyError, match="the queue of 8 is full"):
            await submit(4)
        assert engine.pending == 5
        second = submit(3)
        while engine.pending < 8:
            await asyncio.sleep(0)
        go_on.set()
        assert [len(job.value["y0"]) for job in (*await first, *await second)] == [5, 3]
        assert await engine.drain(30)

    asyncio.run(main())
