"""What other work is, and how much of it disturbs."""

import psutil
import pytest

from onnx_release.timing.interference import CpuTimes, disturbed, read_cpu_times


@pytest.mark.parametrize(
    ("machine", "own", "busy", "cores", "found"),
    [
        (2.0, 2.0, 2, 2, False),  # in a second, all of two cores: its own work
        (2.0, 1.9, 2, 2, False),  # a tenth of a core is too little to be sure of
        (2.0, 1.7, 2, 2, True),  # three tenths of a core went elsewhere
        (2.0, 1.0, 1, 2, False),  # others have the core that it leaves idle
        (8.0, 1.0, 1, 8, False),
        (2.0, 0.7, 1, 2, True),  # they took from its own as well
        (4.0, 1.0, 4, 2, True),  # more threads than cores
    ],
)
def test_by_hand(machine, own, busy, cores, found):
    before = CpuTimes(clock=100.0, machine=5000.0, own=3.0)
    after = CpuTimes(clock=101.0, machine=5000.0 + machine, own=3.0 + own)
    assert disturbed(before, after, busy, cores) is found


def test_a_turn_of_a_few_ticks_of_the_clock_is_not_judged():
    before = CpuTimes(clock=0.0, machine=0.0, own=0.0)
    assert not disturbed(before, CpuTimes(clock=0.09, machine=0.18, own=0.0), busy=2, cores=2)
    assert disturbed(before, CpuTimes(clock=0.11, machine=0.22, own=0.0), busy=2, cores=2)


def test_what_a_hypervisor_takes_is_other_work_and_idling_and_guests_are_none(monkeypatch):
    class Times:
        def _asdict(self):
            return {"user": 1.0, "system": 2.0, "steal": 4.0, "idle": 100.0, "iowait": 100.0, "guest": 100.0}

    monkeypatch.setattr("onnx_release.timing.interference.psutil.cpu_times", Times)
    assert read_cpu_times().machine == 7.0


def test_a_process_sees_its_own_work():
    before = read_cpu_times()
    sum(range(10**6))
    after = read_cpu_times()
    assert after.clock > before.clock
    assert after.own >= before.own >= 0
    assert before.machine > psutil.Process().cpu_times().user  # that of the machine counts since it was started
