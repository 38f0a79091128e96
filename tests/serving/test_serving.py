"""The server as it ships: packaged, started in the release's folder, and asked over HTTP."""

import gzip
import io
import json
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import requests
import tritonclient.http
from PIL import Image

from onnx_release.core.files import read_json, write_json, write_text
from onnx_release.core.types import Prediction
from onnx_release.data.model_data import ModelData
from onnx_release.runtime.release import Release
from serving.body import Upload
from serving.errors import RequestError
from serving.predict import UploadPrediction
from tests.in_process import run_here
from tests.picture_release import colours_release, digits_release, lengths_release, spots_release
from tests.served import PATIENCE, head, serving

PNG = {"Content-Type": "image/png"}
FORMATS = "jpeg,png,webp,tiff,gif,bmp"
LIMITS: dict[str, Any] = {
    "upload_bytes": 100_000,
    "body_bytes": 300_000,
    "pixels": 250_000,
    "files": 3,
    "formats": FORMATS,
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_release(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def address(colours: Path) -> Iterator[str]:
    with serving(colours, **LIMITS) as server:
        yield f"http://127.0.0.1:{server.port}"


def picture(
    colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (16, 8), mode: str = "RGB", name: str = "PNG"
) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(content, name)
    return content.getvalue()


def post(address: str, *contents: bytes, name: str = "a.png") -> requests.Response:
    return requests.post(
        f"{address}/predict", files=[("file", (name, content)) for content in contents], timeout=PATIENCE
    )


def test_a_picture_is_answered_with_labels_names_and_scores(address):
    answer = post(address, picture((255, 51, 0)))
    assert answer.status_code == 200
    content = answer.json()
    assert (content["model"], content["variant"]) == ("colours", "int8_static")
    assert content["inference_time_ms"] > 0
    [prediction] = content["predictions"]
    assert prediction["labels"] == [0, 1, 2]
    assert prediction["names"] == ["red", "green", "blue"]
    logits = np.array([10.0, 2.0, 0.0])  # ten times the means of the channels
    assert prediction["scores"] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), rel=1e-5)


def test_several_pictures_are_answered_in_their_order(address):
    answer = post(address, picture((0, 0, 255)), picture((255, 0, 0)), picture((0, 255, 0)))
    assert [found["names"][0] for found in answer.json()["predictions"]] == ["blue", "red", "green"]


@pytest.mark.parametrize(
    "content",
    [
        picture(mode="CMYK", name="TIFF"),
        picture(mode="CMYK", name="JPEG"),
        picture(mode="L"),
        picture(mode="P", name="GIF"),
        picture(mode="RGBA", name="WEBP"),
        picture(name="BMP"),
        picture(size=(1, 1)),
        picture(size=(50_000, 5)),
    ],
    ids=["CMYK", "CMYK JPEG", "grey", "palette", "alpha", "BMP", "one pixel", "50,000 pixels wide and five high"],
)
def test_pictures_of_every_kind_are_answered(address, content):
    assert post(address, content).status_code == 200


def test_sixteen_bits_are_what_they_are_in_the_pipeline(address):
    deep = io.BytesIO()
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(deep, "PNG")
    [prediction] = post(address, deep.getvalue()).json()["predictions"]
    assert prediction["scores"] == pytest.approx([1 / 3] * 3)  # white, not clipped to black or noise


def film() -> bytes:
    content = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that says that it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(NOISE, "JPEG")


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"this is no picture", 422, "not a picture"),
        (NOISE.getvalue()[: len(NOISE.getvalue()) // 2], 422, "truncated"),
        (film(), 422, "animation"),
        (bomb(50_000, 50_000), 413, "pixels"),
        (picture(size=(501, 500)), 413, "pixels"),
        (b"", 422, "empty"),
        (b"x" * 100_001, 413, "100,000 bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "not a picture"),
    ],
    ids=["no image", "truncated", "animated", "bomb", "a pixel too many", "empty", "too large", "PostScript"],
)
def test_what_cannot_be_answered_is_said_and_named(address, content, status, said):
    answer = post(address, content, name="cat.png")
    assert answer.status_code == status, answer.text
    [(key, text)] = answer.json().items()
    assert key == "error"
    assert said in text and "cat.png" in text and "0x" not in text
    assert post(address, picture()).status_code == 200


@pytest.mark.parametrize("kind", ["image/png", "image/x-of-the-future; a=b", "application/octet-stream"])
def test_a_picture_may_be_the_whole_body(address, kind):
    answer = requests.post(f"{address}/predict", picture(), headers={"Content-Type": kind}, timeout=PATIENCE)
    assert answer.json()["predictions"] == post(address, picture()).json()["predictions"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("as_form", [True, False], ids=["form", "raw"])
def test_a_body_may_be_compressed(address, encoding, compress, as_form):
    sent = {"files": {"file": picture()}} if as_form else {"data": picture(), "headers": PNG}
    request = requests.Request("POST", f"{address}/predict", **sent).prepare()
    request.headers["Content-Encoding"] = encoding
    request.prepare_body(compress(request.body), None)
    with requests.Session() as session:
        answer = session.send(request, timeout=PATIENCE)
    assert answer.json()["predictions"] == post(address, picture()).json()["predictions"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({}, 400, "empty"),
        ({"data": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "multipart/form-data"),
        ({"data": b"x"}, 415, "the content type is missing"),
        ({"data": b"x" * 100_001, "headers": {"Content-Type": "image/png"}}, 413, "100,000"),
        ({"data": b"x", "headers": {"Content-Type": "image/png"}}, 422, "the body: it is not a picture"),
        ({"data": b"x", "headers": {**PNG, "Content-Encoding": "br"}}, 415, "use gzip, deflate or none"),
        ({"data": picture(), "headers": {**PNG, "Content-Encoding": "gzip"}}, 400, "not gzip data"),
        ({"data": gzip.compress(bytes(300_001)), "headers": {**PNG, "Content-Encoding": "gzip"}}, 413, "300000"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"data": b"x" * 9, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "malformed"),
        ({"files": [("file", (f"{n}.png", picture())) for n in range(4)]}, 413, "3 files"),
        ({"data": b"x" * 300_001, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 413, "300,000"),
        (
            {"data": iter([b"x" * 1000] * 400), "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            413,
            "300,000",
        ),
    ],
    ids=[
        "no body",
        "raw text",
        "no type",
        "raw file too large",
        "raw bytes",
        "unknown encoding",
        "not in its encoding",
        "too large once decompressed",
        "no boundary",
        "malformed",
        "four files",
        "body too large",
        "endless body",
    ],
)
def test_a_request_that_is_wrong_as_a_whole(address, options, status, said):
    answer = requests.post(f"{address}/predict", timeout=PATIENCE, **options)
    assert (answer.status_code, *answer.json()) == (status, "error"), answer.text
    assert said in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/models/colours", "/metrics", "/", "/docs", "/openapi.json"])
def test_head_is_answered_as_get_is_without_the_content(address, path):
    got = requests.get(f"{address}{path}", timeout=PATIENCE)
    asked = requests.head(f"{address}{path}", timeout=PATIENCE)
    assert (asked.status_code, asked.content) == (got.status_code, b"") == (200, b"")
    assert asked.headers["Content-Type"] == got.headers["Content-Type"]
    assert path == "/metrics" or asked.headers["Content-Length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("GET", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("GET", "/v2/models/colours/infer", "POST"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(address, method, path, allowed):
    answer = requests.request(method, f"{address}{path}", timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    if method != "HEAD":
        assert answer.json() == {"error": f"{method} is not for {path}: use {allowed}"}


def test_a_path_that_is_not_there_leads_to_no_other_host(address):
    for path, hint in (("/nothing", ""), ("/v2/health/live/", ", and no path ends with a slash")):
        headers = {"Host": "elsewhere.example"}
        answer = requests.get(f"{address}{path}", headers=headers, allow_redirects=False, timeout=PATIENCE)
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": f"there is nothing at {path}: /docs lists all paths{hint}"},
        )


def test_a_client_that_goes_away_in_the_middle_harms_nobody(address):
    host, port = address.removeprefix("http://").split(":")
    for part in (b"", b"--b\r\n", b"x" * 5000):
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            kind = "multipart/form-data; boundary=b"
            client.sendall(head("/predict", "POST", Content_Length=10_000, Content_Type=kind) + part)
    assert post(address, picture()).status_code == 200


def test_tensors_give_what_uploads_give(address):
    """Triton's own client, with the picture as the model's input."""
    inputs = np.zeros((2, 3, 8, 8), np.float32)
    inputs[0, 0], inputs[1, 2] = 1, 0.2
    with tritonclient.http.InferenceServerClient(address.removeprefix("http://")) as client:
        tensor = tritonclient.http.InferInput("input", inputs.shape, "FP32")
        tensor.set_data_from_numpy(inputs)
        found = client.infer("colours", [tensor]).as_numpy("logits")
    assert found.tolist() == [[10, 0, 0], [0, 0, pytest.approx(2)]]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "image"}, 400),
        ({"datatype": "FP64"}, 400),
        ({"shape": [1, 3, 8, 9]}, 400),
        ({"shape": [5, 3, 8, 8], "data": [0.0] * 960}, 413),
        ({"data": [0.0] * 191}, 400),
        ({"data": ["NaN"] * 192}, 400),
    ],
    ids=["name", "dtype", "shape", "batch", "count", "NaN"],
)
def test_wrong_tensors(address, change, status):
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0.0] * 192}
    url = f"{address}/v2/models/colours/infer"
    assert requests.post(url, json={"inputs": [tensor]}, timeout=PATIENCE).status_code == 200
    answer = requests.post(url, json={"inputs": [{**tensor, **change}]}, timeout=PATIENCE)
    assert (answer.status_code, *answer.json()) == (status, "error"), answer.text


def test_metrics_count_requests_by_route_and_status(address):
    post(address, picture())
    requests.get(f"{address}/made-up-by-a-client", timeout=PATIENCE)
    text = requests.get(f"{address}/metrics", timeout=PATIENCE).text
    assert 'serving_requests_total{path="/predict",status="200"}' in text
    assert "made-up" not in text
    assert "serving_batch_rows_count" in text


def test_openapi_shows_the_answer_of_this_task(address):
    schema = requests.get(f"{address}/openapi.json", timeout=PATIENCE).json()
    predict = schema["paths"]["/predict"]["post"]
    assert {"200", "400", "408", "413", "415", "422", "503", "504"} <= set(predict["responses"])
    assert schema["components"]["schemas"]["Predictions"]["example"]["predictions"][0]["names"]


def test_boxes_are_in_pixels_of_the_picture_that_was_sent(tmp_path):
    image = Image.new("RGB", (320, 80))
    image.paste((255, 255, 255), (100, 20, 200, 40))
    content, turned = io.BytesIO(), io.BytesIO()
    image.save(content, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # what is left is the top, says the Exif standard
    image.save(turned, "PNG", exif=exif)
    sent = (content.getvalue(), picture((0, 0, 0)), turned.getvalue())
    with serving(spots_release(tmp_path)) as server:
        found = [post(f"http://127.0.0.1:{server.port}", each).json() for each in sent]
    # The model has seen 32 by 16 pixels, of ten by five each.
    expected = {
        "boxes": [[100, 20, 200, 40]],
        "scores": [1],
        "labels": [1],
        "names": ["spot"],
        "width": 320,
        "height": 80,
    }
    assert found[0]["predictions"] == [expected]
    assert found[1]["predictions"][0]["boxes"] == []
    # Turned to 80 by 320, of which the model sees 2.5 by 20 pixels as one: the box from 40 to 60 and from 100 to 200.
    [upright] = found[2]["predictions"]
    assert (upright["width"], upright["height"]) == (80, 320)
    assert upright["boxes"] == [[40, 100, 60, 200]]


def test_texts_become_embeddings(tmp_path):
    with serving(lengths_release(tmp_path)) as server:
        address = f"http://127.0.0.1:{server.port}"
        found = post(address, b"ab", "ä".encode(), name="a.txt").json()
        raw = [
            requests.post(f"{address}/predict", b"ab", headers={"Content-Type": f"text/plain{more}"}, timeout=PATIENCE)
            for more in ("", "; charset=UTF-8", "; charset=latin-1")
        ]
        broken, too_long = post(address, b"\xff", name="a.txt"), post(address, b"x" * 33, name="a.txt")
    assert found["predictions"] == [{"vector": [97 + 98]}, {"vector": [228]}]
    assert [answer.status_code for answer in raw] == [200, 200, 415] and "send it in UTF-8" in raw[2].text
    assert raw[0].json()["predictions"] == raw[1].json()["predictions"] == [{"vector": [97 + 98]}]
    assert broken.status_code == too_long.status_code == 422
    assert "a.txt" in broken.json()["error"] and "length is 33" in too_long.json()["error"]


def test_a_model_without_uploads_says_what_to_call(tmp_path):
    with serving(digits_release(tmp_path)) as server:
        answer = post(f"http://127.0.0.1:{server.port}", b"x")
    assert answer.status_code == 404
    assert "/v2/models/digits_cnn/infer" in answer.json()["error"]


def test_a_full_queue_answers_503_at_once_and_says_when_to_come_again(colours):
    with serving(colours, queue=1, threads=1) as server:
        address = f"http://127.0.0.1:{server.port}"
        large = picture(size=(1000, 1000))
        too_many = post(address, picture(), picture())  # items, which the queue never holds
        with ThreadPoolExecutor(16) as pool:
            many = list(pool.map(lambda _: post(address, large), range(64)))
        assert post(address, picture()).status_code == 200
    assert too_many.status_code == 413 and "queue" in too_many.json()["error"]
    assert {answer.status_code for answer in many} == {200, 503}
    refused = [answer for answer in many if answer.status_code == 503]
    assert all(int(answer.headers["Retry-After"]) >= 1 and "queue" in answer.json()["error"] for answer in refused)


def test_a_request_that_is_not_answered_by_its_deadline(colours):
    with serving(colours, threads=1, deadline=0.000001) as server:
        answer = post(f"http://127.0.0.1:{server.port}", picture())
    assert answer.status_code == 504 and "not answered by its deadline" in answer.json()["error"]


def test_sigterm_answers_what_is_in_the_engine(colours):
    with serving(colours, threads=1) as server, ThreadPoolExecutor(1) as pool:
        address = f"http://127.0.0.1:{server.port}"
        waiting = pool.submit(post, address, picture(size=(5000, 5000)))
        series = ""
        # The other one in progress is this question itself.
        while "requests_in_progress 2.0" not in series and 'path="/predict"' not in series:
            series = requests.get(f"{address}/metrics", timeout=PATIENCE).text
        server.process.terminate()
        assert waiting.result().status_code == 200
        assert server.process.wait(PATIENCE) == 0


def spoilt(release: Path, change: str) -> str:
    """What is wrong with the release after the change, by a part of the message."""
    if change == "one byte":
        content = bytearray((release / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (release / "model.onnx").write_bytes(content)
        return "model.onnx is not the file that was released"
    if change == "a missing file":
        (release / "runtime.json").unlink()
        return "runtime.json is missing"
    if change == "another model's manifest":
        write_json(release / "MANIFEST.json", {**read_json(release / "MANIFEST.json"), "model": "mobilenet_v2"})
        return "is of the model mobilenet_v2"
    write_text(release / "NOT_RELEASED.txt", "Nothing passed.\n")
    return "Nothing passed."


@pytest.mark.parametrize("change", ["one byte", "a missing file", "another model's manifest", "not released"])
def test_a_release_that_is_not_whole_does_not_start(colours, tmp_path, change):
    release = shutil.copytree(colours, tmp_path / "release")
    said = spoilt(release, change)
    result = run_here(release, "serving", "--port", "0")
    assert result.returncode == 1
    assert said in result.stderr and "error: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_does_not_start_ends_with_one_message(colours, tmp_path, workers):
    release = shutil.copytree(colours, tmp_path / "release")
    said = spoilt(release, "one byte")
    command = [sys.executable, "-m", "serving", "--port", "0", "--workers", str(workers)]
    result = subprocess.run(command, cwd=release, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 1
    assert said in result.stderr and "error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_processes_that_share_the_port_add_up_their_metrics(colours):
    with serving(colours, workers=2) as server:
        address = f"http://127.0.0.1:{server.port}"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: post(address, picture()), range(40)))
        text = requests.get(f"{address}/metrics", timeout=PATIENCE).text
        [counts] = requests.get(f"{address}/v2/models/stats", timeout=PATIENCE).json()["model_stats"]
    assert (counts["inference_count"], counts["inference_stats"]["success"]["count"]) == (40, 40)
    assert all(answer.json()["predictions"][0]["names"][0] == "red" for answer in answers)
    assert 'serving_requests_total{path="/predict",status="200"} 40.0' in text


def test_answers_are_valid_json_for_those_who_cannot_be_answered(address):
    answer = post(address, b"no", name='qu"ote\n.png')
    assert json.loads(answer.text)["error"]


def test_an_answer_that_is_no_number_is_no_answer(make_spec):
    answer = Prediction(np.array([1]), np.array([np.nan], np.float32))
    data = SimpleNamespace(postprocess=lambda outputs: answer)
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    item = UploadPrediction(
        Upload("cat.png", b""),
        cast(Any, bytes),
        cast(ModelData, data),
        cast(Release, SimpleNamespace(labels=None, spec=spec)),
    )
    with pytest.raises(RequestError, match=r"cat\.png: the model's answer is NaN"):
        item.finish({})
