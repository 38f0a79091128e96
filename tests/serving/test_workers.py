"""Several workers: who gets connections, and what happens when one dies, hangs, or does not start again."""

import json
import os
import pty
import re
import signal
import socket
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.served import PATIENCE, announced_port, head, start, wire_app

ENDED = r"warning: worker \d+ ended \(-9\): another one starts\n"
FAILED = "error: model.onnx does not load: export it again\n"


def processes(server):
    """How many of eight connections each worker has got."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()).send(head("/process")) for _ in range(8)]
        return Counter(client.answer().json()["pid"] for client in clients)


def test_workers_get_connections_in_turn_and_one_that_dies_is_replaced():
    log = r"warning: worker \d+ ended \(-9\): another one starts\n"
    with wire_app(log, workers=2) as server:
        first, second = before = processes(server)
        assert before == {first: 4, second: 4}
        metrics = Path(server.get("/process").json()["metrics"])
        assert metrics.is_dir()
        os.kill(first, signal.SIGKILL)
        now = before
        while first in now or len(now) < 2:
            with suppress(ConnectionError):  # the one that died may have got some
                now = processes(server)
        assert second in now
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert not metrics.exists()


def test_workers_do_not_outlive_their_parent():
    process = start("tests.wire_app", json.dumps({"port": 0, "workers": 2}))
    port = announced_port(process)
    process.kill()
    process.communicate()  # until the last of them has closed it
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)


def test_a_worker_that_hangs_gets_no_connections_until_it_goes_on():
    hangs = r"(warning: worker \d+ hangs: it gets no connections until it goes on\n)+"
    with wire_app(hangs, workers=2, drain=0.1) as server:
        first, second = processes(server)
        os.kill(first, signal.SIGSTOP)
        assert processes(server) == {second: 8}  # those that it was given at first were taken back
        os.kill(first, signal.SIGCONT)
        while first not in processes(server):
            pass
        os.kill(first, signal.SIGSTOP)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 1  # it was killed


def test_a_worker_that_does_not_start_again_leaves_the_others_alone(monkeypatch, tmp_path):
    fails = tmp_path / "fails"
    monkeypatch.setenv("WIRE_APP_FAILS", str(fails))
    again = r"warning: a worker did not start, see above: the others serve, and it is tried again in \d+ seconds\n"
    with wire_app(f"{again}({re.escape(FAILED)}{again})*", workers=2) as server:
        first, second = processes(server)
        fails.touch()
        os.kill(first, signal.SIGKILL)
        assert server.logged().startswith("warning: worker")
        assert server.logged() == FAILED
        assert processes(server) == {second: 8}
        fails.unlink()
        while len(processes(server)) < 2:
            pass


def test_a_worker_that_retires_closes_no_connection_that_may_still_be_idle():
    """The worker has ended long before all the questions to the next one are answered, if it does not wait for it."""
    with wire_app(drain=0.01, idle=1000) as server, server.connect() as kept:
        first = kept.send(head("/process")).answer().json()["pid"]
        server.process.send_signal(signal.SIGHUP)
        assert server.printed().startswith("serving the release")
        for _ in range(200):
            assert server.get("/process").json()["pid"] != first
        answer = kept.send(head("/process")).answer()
        assert (answer.json()["pid"], answer.headers["connection"]) == (first, "close")


def test_a_worker_that_retires_is_not_ready_once_the_server_stops():
    """Its request is answered when the application knows it, or else cut off with 503."""
    with wire_app(drain=PATIENCE) as server, server.connect() as kept, server.connect() as waiting:
        assert kept.send(head("/process")).answer().status == 200
        waiting.send(head("/until/stopping", "POST", Content_Length=1), b"0")
        assert kept.send(head("/until/memory/1")).answer().status == 200
        server.process.send_signal(signal.SIGHUP)
        assert server.printed().startswith("serving the release")
        while kept.send(head("/process")).answer().headers["connection"] != "close":
            pass  # until the worker knows that it is to retire
        server.process.terminate()
        assert waiting.answer().status == 200


def test_a_server_without_workers_stops(monkeypatch, tmp_path):
    fails = tmp_path / "fails"
    monkeypatch.setenv("WIRE_APP_FAILS", str(fails))
    process = start("tests.wire_app", json.dumps({"port": 0}))
    with socket.create_connection(("127.0.0.1", announced_port(process))) as client:
        client.sendall(head("/process"))
        fails.touch()
        os.kill(json.loads(client.recv(65536).partition(b"\r\n\r\n")[2])["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert re.fullmatch(ENDED + FAILED + "error: no worker is left, see above: the server stops\n", errors)


def test_a_server_stops_when_its_terminal_is_closed():
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup before pytest would have its children ignore it
        os.execv(sys.executable, [sys.executable, "-m", "tests.wire_app", json.dumps({"port": 0})])
    printed = b""
    while not printed.endswith(b"\n"):
        printed += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
