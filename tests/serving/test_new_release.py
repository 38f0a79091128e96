"""SIGHUP: a running server takes the release that is now in its folder, and no request is lost."""

import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from onnx_release.core.files import read_json, sha256, write_json, write_text
from tests.picture_release import colours_release
from tests.served import PATIENCE, Client, Server, head, serving
from tests.serving.test_serving import picture
from tools.server_process import upload

OLDER = "import argparse; argparse.ArgumentParser().parse_args()"
RED = upload(picture(), True)
TOKEN = "c2VjcmV0"
WITH_TOKEN = RED.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(), 1)
SERVES_ON = "error: the new release was not loaded, see above: the one before serves on\n"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_release(tmp_path_factory.mktemp("colours"))


def release_saying(name: str, colours: Path, folder: Path) -> Path:
    """A copy of the release that has another name for red."""
    shutil.copytree(colours, folder)
    labels = folder / "labels.txt"
    labels.write_text(labels.read_text(encoding="utf-8").replace("red", name), encoding="utf-8")
    manifest = read_json(folder / "MANIFEST.json")
    manifest["files"]["labels.txt"] = {"sha256": sha256(labels), "bytes": labels.stat().st_size}
    write_json(folder / "MANIFEST.json", manifest)
    return folder


answered = threading.Condition()


class Asker(threading.Thread):
    """A client that asks for ever, on a connection that it keeps as long as it is allowed to."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server, self.end = server, threading.Event()
        self.names: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            client = self.server.connect()
            while not self.end.is_set():
                answer = client.send(RED).answer()
                assert answer.status == 200, answer
                with answered:
                    self.names.append(answer.json()["predictions"][0]["names"][0])
                    answered.notify()
                if answer.headers["connection"] == "close":
                    client.__exit__()
                    client = self.server.connect()
            client.__exit__()
        except BaseException as error:
            self.error = error
            with answered:
                answered.notify()


def ask(client: Client) -> str:
    return str(client.send(WITH_TOKEN).answer().json()["predictions"][0]["names"][0])


def until(askers: list[Asker], seen: Callable[[Asker], bool]) -> None:
    with answered:
        assert answered.wait_for(lambda: all(seen(asker) or asker.error for asker in askers), PATIENCE)


def test_no_request_is_lost_while_a_new_release_is_loaded(colours, tmp_path, monkeypatch):
    link = tmp_path / "current"
    link.symlink_to(release_saying("red", colours, tmp_path / "1"))
    release_saying("crimson", colours, tmp_path / "2")
    monkeypatch.setenv("PWD", str(link))  # as a shell that has entered it does
    with serving(link, workers=2, threads=1) as server, ExitStack() as stack:
        askers = [Asker(server) for _ in range(4)]
        for asker in askers:
            stack.callback(asker.join)
            stack.callback(asker.end.set)
            asker.start()
        until(askers, lambda asker: len(asker.names) > 2)
        link.unlink()
        link.symlink_to(tmp_path / "2")
        server.process.send_signal(signal.SIGHUP)
        assert server.printed() == f"serving the release that is now in {link}\n"
        until(askers, lambda asker: asker.names[-3:] == ["crimson"] * 3)
    for asker in askers:
        assert asker.error is None
        changed = asker.names.index("crimson")
        assert set(asker.names[:changed]) == {"red"}
        assert set(asker.names[changed:]) == {"crimson"}


def test_a_release_that_does_not_load_changes_nothing(colours, tmp_path):
    release = release_saying("red", colours, tmp_path / "release")
    crimson = release_saying("crimson", colours, tmp_path / "crimson")
    (release / "token").write_text(TOKEN)
    # The connection lasts however long a release takes to load.
    with serving(release, threads=1, token_file="token", idle=PATIENCE) as server, server.connect() as client:
        assert ask(client) == "red"
        release.rename(tmp_path / "before")
        server.process.send_signal(signal.SIGHUP)
        assert server.logged() == f"error: {release}: No such file or directory\n"
        assert server.logged() == SERVES_ON
        assert ask(client) == "red"
        crimson.rename(release)
        model = release / "model.onnx"
        content = model.read_bytes()
        model.write_bytes(b"no model")
        server.process.send_signal(signal.SIGHUP)
        assert "model.onnx" in server.logged()
        assert server.logged() == SERVES_ON
        assert ask(client) == "red"
        model.write_bytes(content)
        (release / "serving/__main__.py").rename(tmp_path / "kept")
        write_text(release / "serving/__main__.py", OLDER)
        server.process.send_signal(signal.SIGHUP)
        assert server.logged().startswith("usage")
        assert "unrecognized arguments: --worker" in server.logged()
        assert server.logged() == SERVES_ON
        (tmp_path / "kept").rename(release / "serving/__main__.py")
        server.process.send_signal(signal.SIGHUP)
        assert server.printed().startswith("serving the release")
        with server.connect() as another:
            assert ask(another) == "crimson"  # the token moved with the release before
            metrics = another.send(head("/metrics", Authorization=f"Bearer {TOKEN}")).answer().content.decode()
            # Those of both workers.
            assert 'serving_requests_total{path="/predict",status="200"} 4.0\n' in metrics
            assert 'serving_inferences_total{outcome="success"} 4.0\n' in metrics
        with server.connect() as stranger:
            assert stranger.send(RED).answer().status == 401
