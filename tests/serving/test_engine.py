"""The server's engine: a bounded queue, batches of one shape, deadlines, and one job's failure that stays its own."""

import asyncio
import threading
import time
import weakref
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from onnx_release.core.errors import DataError, GraphError
from serving.engine import Engine
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError
from serving.rows import Rows
from tests.clock import Clock

FAR = float("inf")


class Model:
    """Doubles `x`. Its calls wait while `open` is not set.

    `rows` lists how many rows each call had, `batches` how many of them were of jobs, `values` what was in them, and
    `options` those of each call.
    """

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.rows, self.batches, self.options, self.values = [], [], [], set()

    def __call__(self, inputs, options):
        self.options.append(options)
        self.rows.append(len(inputs["x"]))
        self.values |= set(inputs["x"].ravel().tolist())
        self.entered.release()
        assert self.open.wait(30)
        if (inputs["x"] < 0).any():
            raise GraphError("negative")
        return {"y": inputs["x"] * 2}


@contextmanager
def running(model, **options):
    rows = options.pop("rows", Rows({"x": 0}, {"y": 0}, options.pop("max_batch", 4), split=True, shared=True))
    options = {
        "threads": 2,
        "gpu": False,
        "queue": 8,
        "observe": lambda rows, _: model.batches.append(rows),
        **options,
    }
    engine = Engine(model, rows, **options)
    yield engine
    if isinstance(model, Model):
        model.open.set()
    assert asyncio.run(engine.drain(30))
    for thread in engine.threads:
        thread.join(30)
        assert not thread.is_alive()


async def submit_all(engine, jobs, deadline=FAR, gone=None):
    return await engine.submit(jobs, deadline, gone or asyncio.get_running_loop().create_future())


async def submit(engine, job, deadline=FAR, gone=None):
    return (await submit_all(engine, [job], deadline, gone))[0]


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
    task = asyncio.create_task(submit(engine, work(value)))
    await until(lambda: model.entered.acquire(blocking=False))
    return task


def test_a_job_gets_its_own_rows_and_what_its_call_took():
    seen = []
    with running(Model(), observe=lambda rows, seconds: seen.append((rows, seconds))) as engine:
        job = asyncio.run(submit(engine, work(1, 2, 3)))
    assert job.value == [2, 4, 6]
    assert job.batch == 3 and job.milliseconds > 0
    assert seen == [(3, job.milliseconds / 1e3)]


def test_whoever_watches_the_queue_hears_of_each_row():
    places: list[int] = []
    with running(Model()) as engine:
        engine.jobs.observe_places = places.append
        asyncio.run(submit(engine, work(1, 2, 3)))
    assert (max(places), places[-1]) == (3, 0)


def test_what_waits_for_the_model_is_run_together_up_to_the_largest_batch_and_in_order():
    model = Model()
    model.open.clear()

    async def main(engine):
        first = await in_the_model(engine, model, 0)
        others = [asyncio.create_task(submit(engine, work(n))) for n in range(1, 7)]
        await until(lambda: len(engine.jobs.ready) == 6)
        model.open.set()
        return [(await task).value for task in [first, *others]]

    with running(model, gpu=True) as engine:
        assert asyncio.run(main(engine)) == [[0], [2], [4], [6], [8], [10], [12]]
    assert model.batches == [1, 4, 2]


def test_batches_are_filled_up_to_one_size_and_larger_ones_divided():
    async def main(engine):
        return [(await submit(engine, work(*values))) for values in ((1,), (2, 3), (1, 2, 3, 4, 5))]

    model = Model()
    with running(model, gpu=True) as engine:
        jobs = asyncio.run(main(engine))
    assert [job.value for job in jobs] == [[2], [4, 6], [2, 4, 6, 8, 10]]
    assert model.rows == [4, 4, 4, 4]
    assert model.batches == [1, 2, 4, 1]
    assert [job.batch for job in jobs] == [1, 2, 4]


def test_a_batch_is_of_one_shape_and_never_too_large():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [await in_the_model(engine, model, 0)]
        for job in (work(1, 1, 1), work(2, 2), work(3, shape=(2,)), work(4)):
            tasks.append(asyncio.create_task(submit(engine, job)))
            await until(lambda: len(engine.jobs.ready) == len(tasks) - 1)
        model.open.set()
        return [(await task).value for task in tasks]

    with running(model, gpu=True) as engine:
        assert asyncio.run(main(engine)) == [[0], [2, 2, 2], [4, 4], [6], [8]]
    assert model.batches == [1, 3, 2, 1, 1]


def test_a_full_queue_refuses_at_once_and_has_room_again_after():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [asyncio.create_task(submit(engine, work(n))) for n in range(3)]
        await until(lambda: engine.pending == 3)
        with pytest.raises(BusyError, match="full"):
            engine.check_room()
        with pytest.raises(BusyError, match="full") as refused:
            await submit(engine, work(9))
        model.open.set()
        await asyncio.gather(*tasks)
        assert (await submit(engine, work(4))).value == [8]
        with pytest.raises(RequestError, match="send fewer at once"):
            await submit_all(engine, [work(n) for n in range(4)])
        return refused.value.seconds

    with running(model, queue=3) as engine:
        assert asyncio.run(main(engine)) >= 1
        assert engine.pending == 0
    assert 9 not in model.values and 4 in model.values


@pytest.mark.parametrize(
    ("deadline", "left", "error"),
    [(-1, False, DeadlineError), (FAR, True, ClientGoneError)],
    ids=["deadline passed", "client gone"],
)
def test_what_nobody_waits_for_is_dropped_before_it_costs_anything(deadline, left, error):
    def prepare():
        raise AssertionError("was begun")

    async def main(engine):
        gone = asyncio.get_running_loop().create_future()
        if left:
            gone.set_result(None)
        await submit(engine, (prepare, dict), time.monotonic() + deadline, gone)

    with running(Model()) as engine, pytest.raises(error):
        asyncio.run(main(engine))
    assert engine.pending == 0


def test_a_job_that_cannot_be_prepared_or_finished_fails_alone():
    def broken(*_):
        raise DataError("broken")

    async def main(engine):
        prepare, finish = work(1)
        jobs = [(broken, finish), (prepare, broken), (prepare, finish)]
        return await asyncio.gather(*(submit(engine, job) for job in jobs), return_exceptions=True)

    with running(Model()) as engine:
        first, second, third = asyncio.run(main(engine))
    assert str(first) == str(second) == "broken"
    assert third.value == [2]


def test_a_row_that_the_model_fails_on_does_not_spoil_those_beside_it():
    model = Model()
    model.open.clear()

    async def main(engine):
        tasks = [await in_the_model(engine, model, 0)]
        tasks += [asyncio.create_task(submit(engine, work(n))) for n in (1, -1, 3)]
        await until(lambda: len(engine.jobs.ready) == 3)
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
        await submit_all(engine, [work(1), work(-1), work(3)])

    with running(Model()) as engine, pytest.raises(GraphError):
        asyncio.run(main(engine))
    assert engine.pending == 0


def test_what_fails_beside_the_model_is_one_requests_and_the_engine_goes_on():
    def observe(rows, seconds):
        raise OSError("no space left")

    with running(Model(), observe=observe) as engine:
        for _ in range(4):  # more than there are threads
            with pytest.raises(OSError, match="no space"):
                asyncio.run(submit(engine, work(1)))
        assert (engine.pending, len(engine.jobs.calls)) == (0, 0)


def test_a_call_that_fails_has_ended_before_anybody_hears_of_it(monkeypatch):
    running_then = []

    def observe(rows, seconds):
        raise OSError("no space left")

    with running(Model(), observe=observe) as engine:
        deliver = engine.deliver

        def watched(*given):
            running_then.append(len(engine.jobs.calls))
            deliver(*given)

        monkeypatch.setattr(engine, "deliver", watched)
        with pytest.raises(OSError, match="no space"):
            asyncio.run(submit(engine, work(1)))
    assert running_then == [0]


@pytest.mark.parametrize(("jobs", "batches"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_on_a_cpu_a_thread_prepares_what_waits_before_it_runs_a_batch(jobs, batches):
    model = Model()
    with running(model, threads=1, max_batch=2) as engine:
        done = asyncio.run(submit_all(engine, [work(value) for value in range(jobs)]))
    assert [job.value for job in done] == [[value * 2.0] for value in range(jobs)]
    assert model.rows == batches


def test_a_request_of_many_slow_jobs_lets_others_go_first():
    """One thread, which has begun the first of three jobs when a request of one comes."""
    begun, first = [], Held(0)

    def named(name):
        prepare, finish = work(1)

        def prepared():
            begun.append(name)
            return prepare()

        def finished(outputs):
            begun.append(f"{name}, done")
            return finish(outputs)

        return prepared, finished

    async def main(engine):
        many = asyncio.create_task(submit_all(engine, [tuple(first), named("second"), named("third")]))
        await until(first.begun.is_set)
        one = asyncio.create_task(submit(engine, named("the other request's")))
        await until(lambda: len(engine.jobs.raw) == 3)
        first.open.set()
        await asyncio.gather(many, one)

    with running(Model(), threads=1) as engine:
        engine.jobs.turn = 0.0
        asyncio.run(main(engine))
    assert begun[:3] == ["the other request's", "the other request's, done", "second"]


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
    engine.jobs.ready.extend(SimpleNamespace(rows=rows) for rows in ready)
    engine.jobs.raw.extend([SimpleNamespace(waiting=SimpleNamespace(slow=False))] * raw)
    assert engine.jobs.may_run() == runs


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
        asyncio.run(submit_all(engine, [job(1), job(2)]))
    assert made == ["finished", "finished", "delivered", "delivered"]


def test_outputs_that_are_not_rows_come_whole():
    with running(lambda inputs, options: {"y": np.arange(5.0)}, observe=lambda rows, seconds: None) as engine:
        job = asyncio.run(submit(engine, (work(1)[0], lambda outputs: outputs["y"].tolist())))
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
        asyncio.run(submit(engine, job(body)))
        del body
        asyncio.run(until(lambda: gone() is None))


class Held:
    """The two halves of a job whose `prepare` waits until it is let go, and says when it has begun and ended."""

    def __init__(self, *values):
        self.inputs, self.finish = work(*values)
        self.begun, self.open, self.ended = threading.Event(), threading.Event(), threading.Event()

    def prepare(self):
        self.begun.set()
        assert self.open.wait(30)
        self.ended.set()
        return self.inputs()

    def __iter__(self):
        return iter((self.prepare, self.finish))


@pytest.mark.parametrize("error", [DeadlineError, ClientGoneError], ids=["late", "gone"])
@pytest.mark.parametrize("where", ["queued", "prepared", "ready", "running"])
def test_a_request_ends_at_its_deadline_or_with_its_client_wherever_it_is(where, error):
    """Nothing lets go of the threads before the request has ended; its places are free when they do no more for it."""
    model, held, occupied = Model(), Held(1), Held(2)
    model.open.clear()

    async def main(engine):
        loop, others = asyncio.get_running_loop(), []
        if where == "queued":
            others = [asyncio.create_task(submit(engine, occupied))]
            await until(occupied.begun.is_set)
        if where == "ready":
            others = [await in_the_model(engine, model, 2)]
        gone = loop.create_future()
        job = held if where in ("queued", "prepared") else work(1)
        task = asyncio.create_task(submit(engine, job, time.monotonic() + 1000, gone))
        reached = {
            "queued": lambda: len(engine.jobs.raw) == 1,
            "prepared": held.begun.is_set,
            "ready": lambda: len(engine.jobs.ready) == 1,
            "running": lambda: model.entered.acquire(blocking=False),
        }
        await until(reached[where])
        if error is DeadlineError:
            cast(Clock, loop).ahead = 2000
        else:
            gone.set_result(None)
        with pytest.raises(error):
            await task
        assert engine.pending == 1  # the thread's, which works on this job or on the other one
        assert not engine.jobs.raw and not engine.jobs.ready
        for event in model.open, held.open, occupied.open:
            event.set()
        for other in others:
            assert (await other).value == [4]
        await until(lambda: engine.pending == 0)
        assert (await submit(engine, work(5))).value == [10]

    with (
        running(model, threads=2 if where == "ready" else 1, gpu=where == "ready") as engine,
        asyncio.Runner(loop_factory=Clock) as runner,
    ):
        runner.run(main(engine))
    assert held.begun.is_set() == (where == "prepared")
    assert (1 in model.values) == (where == "running")


def test_going_down_answers_what_is_there_and_refuses_the_rest():
    model = Model()
    model.open.clear()

    async def main(engine):
        task = await in_the_model(engine, model, 1)
        draining = asyncio.create_task(engine.drain(30))
        await until(lambda: not engine.accepting)
        with pytest.raises(BusyError, match="stopping"):
            await submit(engine, work(2))
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
    def double(inputs, options):
        return {"y": inputs["x"] * 2}

    with running(double, max_batch=1, gpu=True, observe=lambda rows, _: None) as engine:
        job = asyncio.run(submit(engine, (lambda: {"x": value}, lambda outputs: outputs["y"])))
    assert np.array_equal(job.value, value * 2) and job.value.shape == value.shape
