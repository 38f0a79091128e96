"""The server as processes: how it starts, stops, and keeps its workers."""

import json
import os
import resource
import signal
import socket
import tempfile
from contextlib import suppress

import pytest

from onnx_release.core.errors import ParameterError
from serving.__main__ import PARSER, read_settings
from serving.serve import StartError, raise_file_limit, serve
from serving.settings import Settings
from tests.bounds import open_ended
from tests.in_process import run_here
from tests.served import PATIENCE, head, start, wire_app


def begin(client, path):
    """A request on which the application works: it has asked for the body, of which all but a byte is sent."""
    client.send(head(path, "POST", Content_Length=2, Expect="100-continue"))
    assert client.answer().status == 100
    client.send(b"0")


def test_sigterm_answers_what_is_there_and_takes_no_more():
    with wire_app() as server, server.connect() as working, server.connect() as asking, server.connect() as sending:
        asking.send(head("/v2/health/ready")[:-2])
        begin(working, "/until/stopping")
        begin(sending, "/body")
        working.send(b"1")
        server.process.terminate()
        assert working.answer().status == 200  # it sees that the server stops
        with pytest.raises(ConnectionRefusedError):
            while True:
                with suppress(ConnectionResetError):  # what is accepted until then is closed
                    server.connect().__exit__()
        assert server.process.poll() is None
        ready = asking.send(b"\r\n").answer()
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        assert sending.send(b"1").answer().content == b"2"
        assert server.process.wait(PATIENCE) == 0


def test_draining_has_an_end():
    log = r"warning: requests were cut off after 0.2 seconds, see --drain\n"
    with wire_app(log, drain=0.2) as server, server.connect() as working, server.connect() as sending:
        begin(working, "/until/left")
        begin(sending, "/body")
        working.send(b"1")
        assert server.get("/until/memory/3").status == 200
        server.process.terminate()
        for client in working, sending:
            assert client.answer().status == 503
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_at_once(workers):
    with wire_app(workers=workers) as server, server.connect() as working, server.connect() as stuck:
        begin(stuck, "/body")
        begin(working, "/until/stopping")
        working.send(b"1")
        server.process.send_signal(signal.SIGINT)
        assert working.answer().status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_ctrl_c_which_reaches_every_worker_as_well_answers_what_is_there():
    with wire_app(workers=2) as server, server.connect() as sending:
        begin(sending, "/body")
        os.killpg(server.process.pid, signal.SIGINT)
        while is_ready(server):
            pass
        assert sending.send(b"1").answer().status == 200
        assert server.process.wait(PATIENCE) == 0


def is_ready(server):
    try:
        return server.get("/v2/health/ready").status == 200
    except ConnectionError:  # it takes none any more
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_application_that_does_not_start_is_one_error(workers):
    process = start("tests.wire_app", json.dumps({"port": 0, "workers": workers}), WIRE_APP_FAILS=".")
    printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (1, "")
    assert set(errors.splitlines()) - {"error: a worker did not start, see above: the server stops"} == {
        "error: model.onnx does not load: export it again"
    }


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("tests.wire_app", json.dumps({"port": port}))
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert (
        errors
        == f"error: cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port or --host\n"
    )


def test_the_limit_of_open_files_is_raised_to_what_connections_need(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    for hard in (10_000, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        raise_file_limit(2048)
        assert limits.pop() == (2560, hard)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    raise_file_limit(512)
    assert limits == []
    with pytest.raises(
        StartError, match=r"2048 connections need 2560 open files, and 1024 is the limit: .*--connections 512"
    ):
        raise_file_limit(2048)


def test_the_command_line_comes_before_the_environment_and_the_defaults(monkeypatch):
    monkeypatch.setenv("SERVING_PORT", "80")
    monkeypatch.setenv("SERVING_THREADS", "3")
    settings = read_settings(PARSER.parse_args(["--port", "0", "--max-batch", "4"]))
    assert settings == Settings(port=0, threads=3, max_batch=4)


def test_every_wrong_setting_is_named(monkeypatch):
    monkeypatch.setenv("SERVING_DEADLINE", "soon")
    with pytest.raises(ParameterError) as raised:
        read_settings(PARSER.parse_args(["--workers", "0"]))
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert "--workers or SERVING_WORKERS: Input should be greater than or equal to 1, not '0'" in lines[1]
    assert "--deadline or SERVING_DEADLINE: Input should be a valid number" in lines[2]


@pytest.mark.parametrize("given", [{"buffered_bytes": 39_999_999}, {"body_bytes": 400_000_001}])
def test_the_memory_for_bodies_has_room_for_any_single_one(given):
    """Or such a request would be told for ever to try again."""
    with pytest.raises(ParameterError, match=r"--buffered-bytes .*: raise it, or lower --body-bytes"):
        read_settings(PARSER.parse_args([f"--{name.replace('_', '-')}={value}" for name, value in given.items()]))


def test_help_lists_every_setting_and_its_default():
    shown = " ".join(PARSER.format_help().split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown
        assert str(field.description) in shown
        assert f"default: {'null' if field.default is None else field.default}" in shown


@pytest.mark.parametrize(("arguments", "error"), [(["--port", "x"], "wrong settings"), ([], "MANIFEST.json")])
def test_what_is_wrong_is_one_error_and_exit_code_1(tmp_path, arguments, error):
    """Run outside of a release."""
    run = run_here(tmp_path, "serving", *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: ")
    assert error in run.stderr
    assert "Traceback" not in run.stderr


def test_every_number_of_the_settings_has_both_ends():
    assert open_ended(Settings) == []


def test_a_machine_without_room_for_temporary_files_stops_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StartError, match=r"no temporary folder can be made \(No such file or directory\): set TMPDIR"):
        serve(Settings(port=0))
