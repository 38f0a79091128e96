"""On which core a process wakes up."""

import os
import subprocess
import sys

import pytest

from serving.same_core import waking_here


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which cores a process may run on")
def test_a_process_wakes_up_on_one_core_and_may_then_run_on_all_of_the_threads():
    everywhere = os.sched_getaffinity(0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        with waking_here(process.pid):
            inside = os.sched_getaffinity(process.pid)
        after = os.sched_getaffinity(process.pid)
        process.communicate()
    assert len(inside) == 1 and inside <= everywhere
    assert after == everywhere


def test_a_process_that_has_ended_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with waking_here(process.pid):
        pass
