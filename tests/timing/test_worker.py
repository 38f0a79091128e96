"""A contender's process: what it answers, what is said of it when it fails, and when it counts as warm."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from onnx import helper

from onnx_release.core.errors import BenchmarkError
from onnx_release.core.params import Runtime
from onnx_release.timing import worker as turns
from onnx_release.timing.contenders import Contender
from onnx_release.timing.worker import (
    KEEP_MEMORY,
    WARM_UP_SECONDS,
    ContenderProcess,
    TimedCalls,
    describe_death,
    warm_up,
    worker_environment,
)
from tests.bad_graphs import endless_for_zeros, insatiable
from tests.imports import ROOT

BATCHES = [{"x": np.ones((2, 3), np.float32)}, {"x": np.zeros((2, 3), np.float32)}]


@pytest.fixture
def contender(save_graph, make_spec, tmp_path):
    """A contender whose model has these nodes from x [batch, 3] to y [batch, 3]."""

    def make(*nodes):
        nodes = nodes or (helper.make_node("Relu", ["x"], ["y"]),)
        path = save_graph(list(nodes), [("x", ["batch", 3])], [("y", ["batch", 3])])
        spec = make_spec({"x": ["batch", 3]}, {"y": ["batch", 3]}, batch=(1, 4, 2))
        return Contender("a", "onnx", str(path), tmp_path, spec, Runtime(provider="cpu", intra_threads=1))

    return make


def asked(contender, *requests, batches=BATCHES, timeout=60.0):
    with ContenderProcess(contender, batches, timeout) as worker:
        assert worker.answer() == "ready"
        return [worker.ask(*request) for request in requests]


def test_what_is_asked_is_answered(contender):
    loaded, calls, turn, memory = asked(contender(), ("load",), ("warm_up",), ("turn", 0.001), ("memory",))
    assert loaded.load_seconds > 0
    assert loaded.first_run_seconds > 0
    assert calls >= 6
    assert turn.latencies and all(latency > 0 for latency in turn.latencies)
    assert memory > 10e6  # a Python process with numpy is more


def test_the_memory_of_the_process_that_started_it_is_not_its_own(contender):
    large = np.ones(2**26)  # half a GB
    *_, memory = asked(contender(), ("load",), ("memory",))
    assert memory < large.nbytes


def test_a_file_that_is_not_there_is_named(contender, tmp_path):
    with pytest.raises(BenchmarkError, match=r"GraphError: .*gone\.onnx"):
        asked(replace(contender(), target=str(tmp_path / "gone.onnx")), ("load",))


def test_an_input_that_does_not_fit_is_named(contender):
    with pytest.raises(BenchmarkError, match=r"InputError: x has the shape \[2, 4\]"):
        asked(contender(), ("load",), batches=[{"x": np.ones((2, 4), np.float32)}])


def test_nan_in_the_first_answer_is_a_failure(contender):
    # 0 / 0 for the second batch, and for the first one 1 / 1.
    divide = helper.make_node("Div", ["x", "x"], ["y"])
    with pytest.raises(BenchmarkError, match="the outputs have NaN"):
        asked(contender(divide), ("load",), batches=BATCHES[::-1])


def test_nan_in_a_later_answer_is_a_failure(contender):
    divide = helper.make_node("Div", ["x", "x"], ["y"])
    with pytest.raises(BenchmarkError, match="the outputs have NaN"):
        asked(contender(divide), ("load",), ("warm_up",))


def test_a_model_that_wants_more_memory_than_there_is_says_so(contender):
    with pytest.raises(BenchmarkError, match=r"(?i)alloc"):
        asked(contender(*insatiable()), ("load",))


def test_a_model_that_hangs_is_given_up(contender):
    with ContenderProcess(contender(*endless_for_zeros()), BATCHES[:1], 60.0) as worker:
        assert worker.answer() == "ready"
        worker.ask("load")  # ones: it answers
    with ContenderProcess(contender(*endless_for_zeros()), BATCHES[1:], 60.0) as worker:
        assert worker.answer() == "ready"
        worker.timeout = 0.5
        with pytest.raises(BenchmarkError, match=r"no answer within 0\.5 s"):
            worker.ask("load")
        worker.stop()  # as the harness does with what has failed
        assert not worker.process.is_alive()


@pytest.mark.parametrize(("number", "says"), [(9, "killed .signal 9.*memory runs out"), (11, "crashed with signal 11")])
def test_a_process_that_dies_is_described(contender, number, says):
    with ContenderProcess(contender(), BATCHES, 60.0) as worker:
        worker.answer()
        os.kill(worker.process.pid or 0, number)
        with pytest.raises(BenchmarkError, match=says):
            worker.ask("load")


def test_an_exit_is_described():
    assert describe_death(7) == "it ended with exit code 7"
    assert describe_death(None) == "it has closed its pipe and still runs"


def deaf(contender, batches, pipe):
    """In place of `run_contender`: a process that goes on without its pipe."""
    pipe.close()
    signal.pause()


def test_a_process_that_has_closed_its_pipe_is_not_waited_for(contender, monkeypatch):
    monkeypatch.setattr(turns, "run_contender", deaf)
    monkeypatch.setattr(turns, "END_SECONDS", 0.1)
    with ContenderProcess(contender(), BATCHES, 60.0) as worker, pytest.raises(BenchmarkError, match="closed its pipe"):
        worker.answer()


def starting_another(contender, batches, pipe):
    """In place of `run_contender`: a process that starts one of its own, and says which."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    pipe.send(child.pid)
    pipe.recv()


@pytest.mark.parametrize("ends", [True, False], ids=["at the end", "when it is stopped"])
def test_nothing_is_left_of_a_worker_and_of_what_it_has_started(contender, monkeypatch, ends):
    monkeypatch.setattr(turns, "run_contender", starting_another)
    with ContenderProcess(contender(), BATCHES, 60.0) as worker:
        processes = [psutil.Process(worker.process.pid), psutil.Process(worker.answer())]
        if not ends:
            worker.stop()
    psutil.wait_procs(processes, timeout=60)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_worker_keeps_the_memory_that_it_frees(contender, monkeypatch):
    for key in KEEP_MEMORY:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "the user's")
    before = dict(os.environ)
    with worker_environment(), ContenderProcess(contender(), BATCHES, 60.0) as worker:
        worker.answer()
        environment = psutil.Process(worker.process.pid).environ()
    kept = {key: environment[key] for key in KEEP_MEMORY if key in environment}
    expected = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    assert kept == expected
    assert environment["TORCHINDUCTOR_CACHE_DIR"] != "the user's"
    assert os.environ == before


def test_a_worker_does_not_import_the_script_that_starts_it(contender, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pickle; from onnx_release.timing.worker import ContenderProcess; print('imported')\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    contender = pickle.load(file)\n"
        "with ContenderProcess(contender, [], 60.0) as worker:\n"
        "    print(worker.answer())\n"
    )
    (tmp_path / "contender").write_bytes(pickle.dumps(contender()))
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "contender")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["imported", "ready"]


def test_an_onnx_worker_imports_no_torch():
    code = "import sys, onnx_release.timing.worker, onnx_release.runtime.onnx_model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_turns_go_round_the_batches():
    seen = []

    def call(batch):
        seen.append(batch["x"])
        return []

    taken = TimedCalls(call, [{"x": 0}, {"x": 1}, {"x": 2}], cores=1)  # type: ignore[dict-item]
    assert len(taken.take_turn(0).latencies) == 1  # and the call that is left out
    assert len(taken.take_turn(0).latencies) == 1
    assert seen == [0, 1, 2, 0]


@pytest.mark.parametrize("found", [True, False])
def test_a_turn_says_whether_it_was_disturbed(monkeypatch, found):
    seen = []

    def judge(before, after, busy, cores):
        seen.append((after.clock > before.clock, busy, cores))
        return found

    monkeypatch.setattr(turns, "disturbed", judge)
    assert TimedCalls(lambda _: [], [{}], cores=3).take_turn(0).disturbed is found
    assert seen == [(True, 3, psutil.cpu_count())]


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [
        ([0.1] * 6, 6),  # two windows of three calls, equally fast
        ([0.3] * 3 + [0.2] * 3 + [0.1] * 3 + [0.098] * 3, 12),  # it gets faster until it does not
        ([0.01] * 10, 10),  # fast calls fill a window of time, here five calls
    ],
)
def test_warming_up_ends_when_calls_get_no_faster(seconds, calls):
    left = list(seconds)
    assert warm_up(lambda: left.pop(0)) == calls
    assert not left


def test_warming_up_ends_in_any_case():
    speed = [1.0]

    def faster():
        speed[0] *= 0.98
        return speed[0]

    # A window of three is 6 % faster than the one before; 0.98 + 0.98**2 + ... passes 10 s with the twelfth.
    assert WARM_UP_SECONDS == 10.0
    assert warm_up(faster) == 12


def test_ctrl_c_is_left_to_the_process_that_started_it(contender):
    """A terminal sends it to all of them, and this one would print a traceback."""
    with ContenderProcess(contender(), BATCHES, 60.0) as worker:
        assert worker.answer() == "ready"
        worker.watched.send_signal(signal.SIGINT)
        assert (
            worker.ask(
                "load",
            ).load_seconds
            > 0
        )
