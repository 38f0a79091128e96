"""The server's engine: a bounded queue, batches of one shape, deadlines, and one job's failure that stays its own."""

import asyncio
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from onnx_release.core.errors import DataError, GraphError
from serving.engine import Engine
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError

FAR = float("inf")


class Model:
    """Doubles `x`. Its calls wait while `open` is not set.

    `rows` lists how many rows each call had, `batches` how many of them were of jobs, `values` what was in them.
    """

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.rows, self.batches, self.values = [], [], set()

    def __call__(self, inputs):
        self.rows.append(len(inputs["x"]))
        self.values |= set(inputs["x"].ravel().tolist())
        self.entered.release()
        assert self.open.wait(30)
        if (inputs["x"] < 0).any():
            raise GraphError("negative")
        return {"y": inputs["x"] * 2}


@contextmanager
def running(model, **options):
    options = {
        "max_batch": 4,
        "threads": 2,
        "gpu": False,
        "queue": 8,
        "observe": lambda rows, _: model.batches.append(rows),
        **options,
    }
    engine = Engine(model, **options)
    yield engine
    if isinstance(model, Model):
        model.open.set()
    assert asyncio.run(engine.drain(30))
    for thread in engine.threads:
        thread.join(30)
        assert not thread.is_alive()


def never():
    return False


def work(*values, shape=(1,)):
    """The two halves of a job whose rows are filled with `values`."""
    inputs = {"x": np.stack([np.full(shape, value, np.float32) for value in values])}
    return lambda: inputs, lambda outputs: outputs["y"].reshape(len(values), -1)[:, 0].tolist()


async def until(condition):
    """Let the loop and the threads go on until `condition` holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


async def in_the_model(engine, model, value):
    """A job whose call has begun, as a task."""
    task = asyncio.create_task(engine.submit(*work(value), FAR, never))
    await until(lambda: model.entered.acquire(blocking=False))
    return task


def test_a_job_gets_its_own_rows_and_what_its_call_took():
    seen = []
    with running(Model(), observe=lambda rows, seconds: seen.append((rows, seconds))) as engine:
        job = asyncio.run(engine.submit(*work(1, 2, 3), FAR, never))
    assert job.value == [2, 4, 6]
    assert job.batch == 3 and job.milliseconds > 0
    assert seen == [(3, job.milliseconds / 1e3)]


def test_what_waits_for_the_model_is_run_together_up_to_the_largest_batch_and_in_order():
    model = Model()
    model.open.clear()

    async def main(engine):
        first = await in_the_model(engine, model, 0)
        others = [asyncio.create_task(engine.submit(*work(n), FAR, never)) for n in range(1, 7)]
        await until(lambda: len(engine.ready) == 6)
        model.open.set()
        return [(await task).value for task in [first, *others]]

    with running(model, gpu=True) as engine:
        assert asyncio.run(main(engine)) == [[0], [2], [4], [6], [8], [10], [12]]
    assert model.batches == [1, 4, 2]


def test_batches_are_filled_up_to_one_size_and_larger_ones_left_as_they_are():
    async def main(engine):
        return [(await engine.submit(*work(*values), FAR, never)) for values in ((1,), (2, 3), (1, 2, 3, 4, 5))]

    model = Model()
    with running(model, gpu=True) as engine:
        jobs = asyncio.run(main(engine))
    assert [job.value for job in jobs] == [[2], [4, 6], [2, 4, 6, 8, 10]]
    assert model.rows == [4, 4, 5]
    assert model.batches == [job.batch for job in jobs] == [1, 2, 5]


def test_a_batch_is_of_one_shape_and_never_too_large():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [await in_the_model(engine, model, 0)]
        for job in (work(1, 1, 1), work(2, 2), work(3, shape=(2,)), work(4)):
            tasks.append(asyncio.create_task(engine.submit(*job, FAR, never)))
            await until(lambda: len(engine.ready) == len(tasks) - 1)
        model.open.set()
        return [(await task).value for task in tasks]

    with running(model, gpu=True) as engine:
        assert asyncio.run(main(engine)) == [[0], [2, 2, 2], [4, 4], [6], [8]]
    assert model.batches == [1, 3, 2, 1, 1]


def test_a_full_queue_refuses_at_once_and_has_room_again_after():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [asyncio.create_task(engine.submit(*work(n), FAR, never)) for n in range(3)]
        await until(lambda: engine.pending == 3)
        with pytest.raises(BusyError, match="full"):
            engine.check_room()
        with pytest.raises(BusyError, match="full") as refused:
            await engine.submit(*work(9), FAR, never)
        model.open.set()
        await asyncio.gather(*tasks)
        assert (await engine.submit(*work(4), FAR, never)).value == [8]
        with pytest.raises(RequestError, match="send fewer at once"):
            await engine.submit_all([work(n) for n in range(4)], FAR, never)
        return refused.value.seconds

    with running(model, queue=3) as engine:
        assert asyncio.run(main(engine)) >= 1
        assert engine.pending == 0
    assert 9 not in model.values and 4 in model.values


@pytest.mark.parametrize(
    ("deadline", "gone", "error"),
    [(lambda: time.monotonic() - 1, never, DeadlineError), (lambda: FAR, lambda: True, ClientGoneError)],
    ids=["deadline passed", "client gone"],
)
def test_what_nobody_waits_for_is_dropped_before_it_costs_anything(deadline, gone, error):
    def prepare():
        raise AssertionError("was begun")

    with running(Model()) as engine, pytest.raises(error):
        asyncio.run(engine.submit(prepare, lambda outputs: outputs, deadline(), gone))
    assert engine.pending == 0


def test_a_job_that_cannot_be_prepared_or_finished_fails_alone():
    def broken(*_):
        raise DataError("broken")

    async def main(engine):
        prepare, finish = work(1)
        jobs = [(broken, finish), (prepare, broken), (prepare, finish)]
        return await asyncio.gather(*(engine.submit(*job, FAR, never) for job in jobs), return_exceptions=True)

    with running(Model()) as engine:
        first, second, third = asyncio.run(main(engine))
    assert str(first) == str(second) == "broken"
    assert third.value == [2]


def test_a_row_that_the_model_fails_on_does_not_spoil_those_beside_it():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [await in_the_model(engine, model, 0)]
        tasks += [asyncio.create_task(engine.submit(*work(n), FAR, never)) for n in (1, -1, 3)]
        await until(lambda: len(engine.ready) == 3)
        model.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with running(model, gpu=True) as engine:
        _, first, spoilt, third = asyncio.run(main(engine))
    assert (first.value, third.value) == ([2], [6])
    assert isinstance(spoilt, GraphError)
    assert model.batches == [1, 1, 1]  # of those that went well
    assert len(model.rows) == 5  # the first, the three together, and each of them alone


def test_the_first_failure_of_a_request_is_raised_once_all_its_jobs_are_done():
    async def main(engine):
        await engine.submit_all([work(1), work(-1), work(3)], FAR, never)

    with running(Model()) as engine, pytest.raises(GraphError):
        asyncio.run(main(engine))
    assert engine.pending == 0


def test_what_fails_beside_the_model_is_one_requests_and_the_engine_goes_on():
    def observe(rows, seconds):
        raise OSError("no space left")

    with running(Model(), observe=observe) as engine:
        for _ in range(4):  # more than there are threads
            with pytest.raises(OSError, match="no space"):
                asyncio.run(engine.submit(*work(1), FAR, never))
        assert (engine.pending, engine.running) == (0, 0)


def test_a_call_that_fails_has_ended_before_anybody_hears_of_it(monkeypatch):
    running_then = []

    def observe(rows, seconds):
        raise OSError("no space left")

    with running(Model(), observe=observe) as engine:
        deliver = engine.deliver

        def watched(*given):
            running_then.append(engine.running)
            deliver(*given)

        monkeypatch.setattr(engine, "deliver", watched)
        with pytest.raises(OSError, match="no space"):
            asyncio.run(engine.submit(*work(1), FAR, never))
    assert running_then == [0]


@pytest.mark.parametrize(("jobs", "batches"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_on_a_cpu_a_thread_prepares_what_waits_before_it_runs_a_batch(jobs, batches):
    model = Model()
    with running(model, threads=1, max_batch=2) as engine:
        done = asyncio.run(engine.submit_all([work(value) for value in range(jobs)], FAR, never))
    assert [job.value for job in done] == [[value * 2.0] for value in range(jobs)]
    assert model.rows == batches


@pytest.mark.parametrize(
    ("ready", "raw", "options", "runs"),
    [
        ([], 5, {}, False),
        ([1], 0, {}, True),
        ([1], 1, {}, True),  # the other thread's
        ([1], 2, {}, False),
        ([1, 1, 1], 2, {}, False),
        ([1, 1, 1, 1], 2, {}, True),
        ([3, 1], 2, {}, True),
        ([1], 1, {"threads": 1}, False),
        ([1], 5, {"gpu": True}, True),
        ([1], 5, {"max_batch": 1}, True),
    ],
)
def test_when_what_is_ready_runs(ready, raw, options, runs):
    """`ready` lists the rows of each job, `raw` is how many are to be prepared; two threads and batches of four."""
    with running(Model(), **options) as engine:
        pass  # its threads have ended, and nobody takes what follows
    engine.ready.extend(SimpleNamespace(rows=rows) for rows in ready)
    engine.raw.extend([None] * raw)
    assert engine.may_run() == runs


def test_the_event_loop_hears_of_a_batch_when_all_of_it_is_done(monkeypatch):
    model, made = Model(), []
    with running(model, threads=1, max_batch=2) as engine:
        deliver = engine.deliver

        def watched(*given):
            made.append("delivered")
            deliver(*given)

        def job(value):
            prepare, finish = work(value)

            def watched_finish(outputs):
                made.append("finished")
                return finish(outputs)

            return prepare, watched_finish

        monkeypatch.setattr(engine, "deliver", watched)
        asyncio.run(engine.submit_all([job(1), job(2)], FAR, never))
    assert made == ["finished", "finished", "delivered", "delivered"]


def test_outputs_that_are_not_rows_come_whole():
    with running(lambda inputs: {"y": np.arange(5.0)}, observe=lambda rows, seconds: None) as engine:
        job = asyncio.run(engine.submit(work(1)[0], lambda outputs: outputs["y"].tolist(), FAR, never))
    assert job.value == [0, 1, 2, 3, 4]


def test_an_engine_that_waits_holds_nothing_of_what_it_did():
    class Body:
        pass

    body = Body()
    gone = weakref.ref(body)

    def job(body):
        prepare, finish = work(1)
        return (lambda: prepare() if body else {}), finish

    with running(Model()) as engine:
        asyncio.run(engine.submit(*job(body), FAR, never))
        del body
        asyncio.run(until(lambda: gone() is None))


def test_what_got_ready_too_late_is_dropped_before_it_runs():
    model = Model()
    model.open.clear()
    left = threading.Event()

    async def main(engine):
        first = await in_the_model(engine, model, 1)
        second = asyncio.create_task(engine.submit(*work(2), FAR, left.is_set))
        await until(lambda: len(engine.ready) == 1)
        left.set()
        model.open.set()
        with pytest.raises(ClientGoneError):
            await second
        return (await first).value

    with running(model, gpu=True) as engine:
        assert asyncio.run(main(engine)) == [2]
    assert 2 not in model.values


def test_going_down_answers_what_is_there_and_refuses_the_rest():
    model = Model()
    model.open.clear()

    async def main(engine):
        task = await in_the_model(engine, model, 1)
        draining = asyncio.create_task(engine.drain(30))
        await until(lambda: not engine.accepting)
        with pytest.raises(BusyError, match="stopping"):
            await engine.submit(*work(2), FAR, never)
        model.open.set()
        return await draining, (await task).value

    with running(model) as engine:
        assert asyncio.run(main(engine)) == (True, [2])


def test_a_request_that_is_cancelled_gives_its_place_back():
    model = Model()
    model.open.clear()

    async def main(engine):
        task = await in_the_model(engine, model, 1)
        task.cancel()
        model.open.set()
        await until(lambda: engine.pending == 0)

    with running(model) as engine:
        asyncio.run(main(engine))


@pytest.mark.parametrize("value", [np.array(3.0, np.float32), np.zeros((0, 2), np.float32)], ids=["scalar", "empty"])
def test_an_input_without_a_batch_is_run_as_it_is(value):
    def double(inputs):
        return {"y": inputs["x"] * 2}

    with running(double, max_batch=1, gpu=True, observe=lambda rows, _: None) as engine:
        job = asyncio.run(engine.submit(lambda: {"x": value}, lambda outputs: outputs["y"], FAR, never))
    assert np.array_equal(job.value, value * 2) and job.value.shape == value.shape
