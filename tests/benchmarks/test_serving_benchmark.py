"""The pure parts of benchmarks/serving.py: what it makes of wrk's output, of latencies, statuses and memory."""

import numpy as np
import pytest

from benchmarks.serving import (
    ideal_queue,
    latency_summary,
    load_summary,
    memory_summary,
    parse_setting,
    parse_wrk,
    shares,
    status_counts,
)
from benchmarks.serving_load import FAILED, NO_ANSWER, NO_CONNECTION, ClientConnection, arrivals, parse_head
from benchmarks.serving_page import describe_serving
from tools.server_process import upload

WRK = """Running 10s test @ http://127.0.0.1:8000
  1 threads and 8 connections
Requests/sec:    101.00
{"answers": 1010, "microseconds": 10000000, "not_2xx": 10, "connect": 1, "read": 2, "write": 3, "timeout": 4, \
"median_us": 80500, "p99_us": 120000}
"""


def test_wrk_counts_what_was_answered_well():
    assert parse_wrk(WRK) == {"rate": 100.0, "errors": 20, "median_ms": 80.5, "p99_ms": 120.0}


def test_shares_are_of_the_same_round():
    # The machine is half as fast in the second round: the ratio stays.
    turns = {
        "bare session": [{"rate": 100.0}, {"rate": 50.0}, {"rate": 100.0}],
        "a server": [{"rate": rate, "errors": 1, "median_ms": 80.0} for rate in (90.0, 45.0, 90.0)],
    }
    found = shares(turns)
    assert found["bare session"]["share"] == found["bare session"]["low"] == found["bare session"]["high"] == 1
    assert found["a server"]["share"] == pytest.approx(0.9)
    assert found["a server"]["low"] == pytest.approx(0.9)
    assert found["a server"]["rate"] == 90
    assert found["a server"]["errors"] == 3


def test_latency_is_of_what_was_answered_200():
    seconds = np.array([*np.arange(1, 102) / 1e3, 9.0, np.nan])
    statuses = np.array([*[200] * 101, 503, NO_ANSWER])
    found = latency_summary(seconds, statuses)
    assert found["answers"] == 101
    assert [found[key] for key in ("median_ms", "p95_ms", "p99_ms")] == pytest.approx([51, 96, 100])
    assert found["tail"] == pytest.approx(100 / 51)
    assert latency_summary(seconds, np.zeros(103))["median_ms"] is None


def test_the_ideal_queue_is_the_one_of_theory():
    # One thread: the mean wait is load / (2 (1 - load)) of a request's time (Pollaczek and Khinchine).
    assert ideal_queue(0.5, 1).mean() == pytest.approx(1 + 0.5, rel=0.02)
    assert ideal_queue(0.8, 1).mean() == pytest.approx(1 + 2, rel=0.03)
    found = np.sort(ideal_queue(0.1, 4))
    assert found[0] == pytest.approx(1)  # nobody is faster than a request's own time
    assert found[len(found) // 2] == pytest.approx(1)


def test_any_other_status_is_an_error():
    statuses = np.array([200, 503, 500, FAILED, NO_CONNECTION, NO_ANSWER])
    found = load_summary({"cpu_share": 0.1}, {"status": statuses, "late": np.array([0.001] * 6)})
    assert found == {"load_cpu_share": 0.1, "load_late_p99_ms": pytest.approx(1), "errors": 4}
    assert status_counts(statuses) == {
        **{"no answer": 1, "no connection free": 1, "connection failed": 1},
        **{"200": 1, "500": 1, "503": 1},
    }


def test_memory_is_compared_after_the_first_tenth():
    memory = [50.0, 51.0, *[100.0, 102.0], *[101.0] * 14, *[110.0, 112.0]]
    found = memory_summary(memory)
    assert (found["memory_early_mb"], found["memory_late_mb"]) == (101, 111)
    assert found["memory_growth"] == pytest.approx(111 / 101 - 1)


def test_arrivals_have_the_rate():
    assert arrivals("even", 50, 0.1).tolist() == pytest.approx([0, 0.02, 0.04, 0.06, 0.08])
    random = arrivals("poisson", 50, 100)
    gaps = np.diff(random)
    assert len(random) == 5000
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.std() == pytest.approx(0.02, rel=0.1)  # as exponential ones have


@pytest.mark.parametrize("end", range(1, 10))
def test_the_head_of_an_answer(end):
    answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\ncontent-length: 5\r\nConnection: close\r\n\r\nbusy."
    )
    assert parse_head(answer[: -5 - end]) is None
    assert parse_head(answer) == (503, len(answer), True)


def test_an_answer_without_length_is_refused():
    with pytest.raises(ValueError, match="Content-Length"):
        parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


class Transport:
    """What Connection needs of a socket; `unsent` are the bytes that have not gone."""

    def __init__(self, unsent=0):
        self.unsent, self.aborted = unsent, False

    def write(self, request):
        pass

    def get_write_buffer_size(self):
        return self.unsent

    def abort(self):
        self.aborted = True


def exchange(transport, *received):
    free: list[ClientConnection] = []
    done: list[int] = []
    connection = ClientConnection(free.append, lambda connection: None)
    connection.connection_made(transport)
    connection.send(b"", done.append)
    for part in received:
        connection.data_received(part)
    return connection, free, done


def test_a_connection_is_free_again_after_a_whole_answer():
    _, free, done = exchange(Transport(), b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n{")
    assert (free, done) == ([], [])
    connection, free, done = exchange(Transport(), b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n{", b"}")
    assert (free, done) == ([connection], [200])


@pytest.mark.parametrize(
    ("unsent", "head"), [(100, b"Content-Length: 0"), (0, b"Content-Length: 0\r\nConnection: close")]
)
def test_a_connection_that_cannot_be_used_again_is_closed(unsent, head):
    transport = Transport(unsent)
    _, free, done = exchange(transport, b"HTTP/1.1 503 BusyError\r\n" + head + b"\r\n\r\n")
    assert (free, done, transport.aborted) == ([], [503], True)


def test_a_connection_that_is_lost_counts_once():
    connection, _, done = exchange(Transport())
    connection.connection_lost(None)
    connection.connection_lost(None)
    assert done == [FAILED]


def test_the_upload_says_how_long_it_is():
    for form in (True, False):
        head, _, body = upload(b"\xff\xd8 a photograph", form).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"\xff\xd8 a photograph" in body


def test_settings_of_the_command_line():
    assert parse_setting("workers=2,threads=1") == {"workers": "2", "threads": "1"}
    with pytest.raises(Exception, match="NAME=VALUE"):
        parse_setting("workers")


def test_the_page_has_the_figures_of_every_part():
    row = {"rate": 96.0, "share": 1.0, "low": 1.0, "high": 1.0}
    server = {"rate": 90.0, "share": 0.93751, "low": 0.921, "high": 0.951, "errors": 0}
    contenders = {"bare session": row, "served here": server}
    answered = {"median_ms": 21.3, "p95_ms": 30.0, "p99_ms": 41.0, "tail": 1.92, "errors": 0}
    result = {
        "machine": "AMD EPYC, 2 cores",
        "photographs": {"count": 20, "mean_kb": 72.9},
        "throughput": {
            **{"released": "int8_static", "rounds": 8, "seconds": 10, "connections": 8},
            **{"fp32": contenders, "int8_static": contenders},
        },
        "latency": {
            **{"capacity": 100.0, "rate": 80.0, "seconds": 60},
            **{"even": answered, "poisson": answered, "ideal": {**answered, "tail": 3.89}},
        },
    }
    page = describe_serving(result)
    assert "| served here | 90 | 0.938 [0.921, 0.951] | 90 | 0.938 [0.921, 0.951] | 0 |" in page
    assert "| bare session | 96 | 1 | 96 | 1 | 0 |" in page
    assert "| at even intervals | 21.3 | 30 | 41 | 1.92 | 0 |" in page
    assert "in an ideal queue (simulated) | 21.3 | 30 | 41 | 3.89 |" in page
    assert "80.0 % of the server's capacity of 100" in page
    assert "minutes at" not in page  # what was not measured has no table
    start = {"seconds": [1.0] * 5, "median": 1.234, "max": 1.5}
    overload = {
        **{"minutes": 10, "rate": 200.0, "goodput": 0.991, "statuses": {"200": 59460, "503": 60540}},
        **{"accepted": {"median_ms": 640.0, "p99_ms": 700.0}, "refused": {"median_ms": 1.5, "p99_ms": 8.0}},
        **{"memory_early_mb": 150.0, "memory_late_mb": 151.5, "memory_growth": 0.01},
        **{"ready_seconds": 0.002, "answered_seconds": 0.65},
    }
    page = describe_serving(
        {**result, "overload": overload, "start": {"with_pycache": start, "without_pycache": start}}
    )
    assert "59,460 × 200, 60,540 × 503" in page
    assert "| answers with 200, as a share of the capacity | 99.1 % |" in page
    assert "| resident memory after a tenth of the time, MB | 150, at the end 152 (+1.0 %) |" in page
    assert "| without `__pycache__` | 1.23 | 1.5 |" in page
