"""The processes that decode uploads: what ends them, what is answered then, and that the next upload finds another."""

import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from benchmarks.attack_files import attacks, progressive_jpeg, small_jpeg
from onnx_release.core.errors import InputError
from onnx_release.core.spec import Spec
from onnx_release.data import images
from serving.decoder import check_declared
from serving.settings import FORMATS, Settings
from tests.picture_release import colours_release, obedient_release
from tests.served import PATIENCE, Server, announced_port, head, serving

# The others of benchmarks/attack_files.py take seconds to make or to decode.
QUICK = [attack for attack in attacks() if "50 million pixels" not in attack.name and attack.statuses[0] != 200]


def post(server: Server, content: bytes) -> requests.Response:
    address = f"http://127.0.0.1:{server.port}/predict"
    return requests.post(address, files={"file": ("a.file", content)}, timeout=PATIENCE)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_release(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return obedient_release(tmp_path_factory.mktemp("obedient"))


@pytest.fixture(scope="module")
def reads_all(colours: Path) -> Iterator[Server]:
    with serving(colours, formats=",".join(FORMATS)) as server:
        yield server  # and at the end it has logged nothing, nor has libtiff


@pytest.mark.parametrize("attack", QUICK, ids=[attack.name for attack in QUICK])
def test_a_file_that_attacks_is_refused(reads_all, attack):
    answer = post(reads_all, attack.make())
    assert answer.status_code in attack.statuses, answer.text
    assert answer.json()["error"].startswith("a.file: ")


def test_many_at_once_keep_their_own_pixels(reads_all):
    """More than a process has places for the arrays of."""
    files = []
    for number in range(16):
        content = io.BytesIO()
        Image.new("RGB", (16, 16), [(255, 0, 0), (0, 255, 0), (0, 0, 255)][number % 3]).save(content, "PNG")
        files.append(("file", (f"{number}.png", content.getvalue())))
    answer = requests.post(f"http://127.0.0.1:{reads_all.port}/predict", files=files, timeout=PATIENCE)
    found = [prediction["names"][0] for prediction in answer.json()["predictions"]]
    assert found == (["red", "green", "blue"] * 6)[:16]


@pytest.fixture(scope="module")
def hurried(colours: Path) -> Iterator[Server]:
    with serving(colours, decode_seconds=0.05) as server:
        yield server


def test_formats_are_those_that_are_set(hurried):
    refused, taken = post(hurried, b"GIF89a\x01\0\x01\0\0\0\0;"), post(hurried, small_jpeg())
    assert taken.status_code == 200
    assert refused.status_code == 415
    assert "GIF" in refused.json()["error"] and "--formats JPEG,PNG,WEBP,GIF" in refused.json()["error"]


def test_a_picture_that_takes_too_long_is_stopped(hurried):
    stopped, next_one = post(hurried, progressive_jpeg(20)), post(hurried, small_jpeg())
    assert stopped.status_code == 413 and "0.05 seconds of CPU time" in stopped.json()["error"]
    assert next_one.status_code == 200


def test_the_settings_know_the_formats_that_the_pipeline_reads():
    assert FORMATS == images.FORMATS
    assert Settings(formats="png, jpeg").formats == "PNG,JPEG"
    with pytest.raises(ValueError, match="JPG is none of JPEG"):
        Settings(formats="JPG")


ENDS = {"threads": 1, "decode_seconds": 0.5, "tensor_bytes": 1_000_000}
LOGGED = r"(?s)a process .* ended \(3\)\nthe system has ended a process.*the model's code is wrong\n"


@pytest.fixture(scope="module")
def ends(obedient: Path) -> Iterator[Server]:
    with serving(obedient, logged=LOGGED, **ENDS) as server:
        yield server


@pytest.mark.parametrize(
    ("order", "status", "said"),
    [
        (b"take memory", 413, "bytes of memory"),
        (b"take time", 413, "0.5 seconds of CPU time"),
        (b"refuse", 422, "it cannot be read: no such order"),
        (b"give a large array", 422, "--tensor-bytes"),
        (b"give another name", 422, "the model takes codes, and preprocess() gives numbers"),
        (b"end", 422, "crash"),
        (b"be killed", 503, "by the system"),
        (b"fail", 500, "logged why"),
    ],
)
def test_whatever_a_decoder_does_the_next_upload_is_answered(ends, order, status, said):
    answer, next_one = post(ends, order), post(ends, b"work")
    assert (answer.status_code, *answer.json()) == (status, "error"), answer.text
    assert said in answer.json()["error"]
    assert next_one.json()["predictions"] == [{"vector": [4]}]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process has open")
def test_what_the_model_does_not_take_leaves_the_shared_memory_small(ends):
    """The spec has texts of up to 32 codes of 8 bytes; the array is of a tenth of the bytes of --tensor-bytes."""
    answer = post(ends, b"give a long array")
    assert answer.status_code == 422 and "where 1 to 32 is declared" in answer.json()["error"]
    _, decoder = forkserver_and_decoder(ends)
    opened = list(Path(f"/proc/{decoder.pid}/fd").iterdir())
    sizes = [path.stat().st_size for path in opened if "serving-arrays" in str(path.readlink())]
    assert len(sizes) >= 5 and max(sizes) < 1000


def test_the_files_of_a_request_share_its_cpu_time(obedient):
    """Of one second; the two of 0.7 are decoded at once where there are two cores."""
    with serving(obedient, threads=2, decode_seconds=1) as server:
        address = f"http://127.0.0.1:{server.port}/predict"
        alone = post(server, b"take 0.3 seconds")
        for orders in ([b"take 0.35 seconds"] * 4, [b"take 0.7 seconds"] * 2):
            files = [("file", ("a.file", order)) for order in orders]
            answer = requests.post(address, files=files, timeout=PATIENCE)
            assert answer.status_code == 413 and "1 seconds of CPU time" in answer.json()["error"]
    assert alone.status_code == 200


def forkserver_and_decoder(server: Server) -> tuple[psutil.Process, psutil.Process]:
    processes = psutil.Process(server.process.pid).children(recursive=True)
    forkservers = {process.pid: process for process in processes if "forkserver" in " ".join(process.cmdline())}
    (decoder,) = [process for process in processes if process.ppid() in forkservers]
    return forkservers[decoder.ppid()], decoder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_a_decoder_that_does_not_start_is_started_at_the_next_upload(obedient):
    """The forkserver ends when it has no file left for it; it took with it how the processes of its own end."""
    log = r"(?s).*did not start: the system refuses it.*the next upload tries it again\n.* why is unknown\n.*"
    with serving(obedient, logged=log, threads=1) as server:
        forkserver, decoder = forkserver_and_decoder(server)
        taken = {int(path.name) for path in Path(f"/proc/{forkserver.pid}/fd").iterdir()}
        free = min(set(range(len(taken) + 1)) - taken)
        forkserver.rlimit(psutil.RLIMIT_NOFILE, (free, free))
        decoder.kill()
        errors = []
        while (answer := post(server, b"work")).status_code != 200:
            # Several, if the decoder gets the first before it ends, or the forkserver has not quite ended.
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            errors.append(answer.json()["error"])
        assert any("could be started" in error for error in errors)
        forkserver_and_decoder(server)[0].kill()
        unknown = post(server, b"end")
        assert unknown.status_code == 503 and "unknown reason" in unknown.json()["error"]
        while post(server, b"work").status_code != 200:
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which cores a process may run on")
def test_a_decoder_may_run_wherever_the_thread_that_waits_for_it_may(ends):
    _, decoder = forkserver_and_decoder(ends)
    everywhere = decoder.cpu_affinity()
    decoder.cpu_affinity(everywhere[:1])
    assert post(ends, b"work").status_code == 200
    assert decoder.cpu_affinity() == everywhere


def test_a_decoder_is_stopped_at_the_deadline(obedient):
    with serving(obedient, threads=1, deadline=0.5) as server:
        late, next_one = post(server, b"wait"), post(server, b"work")
    assert late.status_code == 504 and next_one.status_code == 200


def test_a_decoder_is_stopped_when_its_client_leaves_and_when_the_server_ends(obedient):
    body = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nwait\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b"
    with serving(obedient, threads=1, deadline=1000) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head("/predict", "POST", Content_Length=len(body), Content_Type=kind) + body)
            while b"serving_queue_items 1.0" not in server.get("/metrics").content:
                pass
        assert post(server, b"work").status_code == 200
        started = psutil.Process(server.process.pid).children(recursive=True)
        assert started
    assert psutil.wait_procs(started, PATIENCE)[1] == []


def test_the_processes_end_when_the_server_is_killed(obedient):
    command = [sys.executable, "-m", "serving", "--port", "0"]
    with subprocess.Popen(command, cwd=obedient, stdout=subprocess.PIPE, text=True) as process:
        announced_port(process)
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert psutil.wait_procs(started, PATIENCE)[1] == []


def test_a_formula_is_checked_whatever_input_shows_its_sizes_first():
    """Before anything else has the arrays: two of the first input are one of the second."""
    spec = Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {"n": {"min": 1, "max": 4, "example": 2}},
            "inputs": [
                {"name": "double", "dtype": "float32", "shape": [1, "2*n"]},
                {"name": "single", "dtype": "float32", "shape": [1, "n"]},
            ],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [1, "n"]}],
        }
    )
    single = np.ones((1, 2), np.float32)
    check_declared(spec, {"double": np.ones((1, 4), np.float32), "single": single})
    with pytest.raises(InputError, match=r"double has the shape \[1, 5\]"):
        check_declared(spec, {"double": np.ones((1, 5), np.float32), "single": single})
