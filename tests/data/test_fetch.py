"""Sources are fetched, compared with their sums, and replace the earlier ones only when all are right."""

import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onnx_release.core.errors import SourceError
from onnx_release.core.spec import Source
from onnx_release.data import fetch
from onnx_release.data.checksums import tree_sha256
from onnx_release.data.fetch import fetch_sources, sums_on_disk
from tests.imports import ROOT

CONTENT = b"weights"
SUM = hashlib.sha256(CONTENT).hexdigest()


def source(origin, sum_=SUM, name="weights.pth"):
    return Source.model_validate({"name": name, "sha256": sum_, "from": origin})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """data/raw/net as an earlier fetch left it, in a repository whose model folder holds weights.pth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/net").mkdir(parents=True)
    (tmp_path / "models/net/weights.pth").write_bytes(CONTENT)
    raw = tmp_path / "data/raw/net"
    raw.mkdir(parents=True)
    (raw / "weights.pth").write_bytes(b"earlier")
    return raw


def expect_failure(folder, sources, message):
    with pytest.raises(SourceError, match=message):
        fetch_sources("net", sources, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"weights.pth": b"earlier"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_relative_path_starts_at_the_model_s_folder(folder):
    fetch_sources("net", [source({"path": "weights.pth"})], folder)
    assert (folder / "weights.pth").read_bytes() == CONTENT


def test_a_url_is_downloaded(folder):
    fetch_sources("net", [source({"url": (folder.parents[2] / "models/net/weights.pth").as_uri()})], folder)
    assert (folder / "weights.pth").read_bytes() == CONTENT


def test_a_member_is_taken_out_of_a_wheel_that_is_downloaded_once(folder, tmp_path, monkeypatch):
    wheel = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("net/weights.pth", CONTENT)
    calls = []

    class Done:
        returncode = 0

    def pip(command, **_):
        calls.append(command[-1])
        target = tmp_path / command[command.index("--dest") + 1]
        target.mkdir(parents=True)
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return Done

    monkeypatch.setattr(subprocess, "run", pip)
    origin = {"wheel": "net==1", "member": "net/weights.pth"}
    fetch_sources("net", [source(origin), source(origin, name="again.pth")], folder)
    assert (folder / "again.pth").read_bytes() == CONTENT
    assert calls == ["net==1"]


def test_a_member_that_the_wheel_has_not_is_named(folder, tmp_path, monkeypatch):
    wheel = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("net/weights.pth", CONTENT)
    monkeypatch.setattr(fetch, "download_wheel", lambda *_: wheel)
    origin = {"wheel": "net==1", "member": "net/other.pth"}
    expect_failure(folder, [source(origin)], r"net-1-py3-none-any\.whl has no member net/other\.pth")


def test_what_is_no_longer_declared_is_gone_after_the_fetch(folder):
    fetch_sources("net", [source({"path": "weights.pth"}, name="new.pth")], folder)
    assert [path.name for path in folder.iterdir()] == ["new.pth"]


def test_a_first_fetch_that_fails_leaves_nothing(folder, tmp_path):
    with pytest.raises(SourceError):
        fetch_sources("net", [source({"path": "weights.pth"}, "0" * 64)], tmp_path / "data/raw/other")
    assert list((tmp_path / "data/raw").iterdir()) == [folder]


def test_a_wrong_sum_names_both(folder):
    wrong = "0" * 64
    message = rf"models/net/weights\.pth has the sha256 {SUM}, models/net/spec\.yaml declares {wrong} "
    message += rf"(?s:.*)\n    sha256: {SUM}$"
    expect_failure(folder, [source({"path": "weights.pth"}, wrong)], message)


def test_a_download_with_another_sum_is_not_called_a_change(folder):
    url = (folder.parents[2] / "models/net/weights.pth").as_uri()
    expect_failure(folder, [source({"url": url}, "0" * 64)], f"weights.pth has the sha256 {SUM}, .*damaged or another")


def test_all_that_has_changed_is_named_before_anything_is_downloaded(folder, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda *_: pytest.fail("downloaded"))
    wrong = "0" * 64
    online = source({"url": "http://127.0.0.1/a"}, name="a.pth")
    sources = [online, source({"path": "weights.pth"}, wrong, "b.pth"), source({"path": "weights.pth"}, wrong, "c.pth")]
    expect_failure(folder, sources, "(?s)for the source b.pth: .*for the source c.pth: ")
    expect_failure(folder, [online, source({"path": "gone.pth"})], "no file or folder")


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refused(path, _):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(fetch, "path_sha256", refused)
    expect_failure(folder, [source({"path": "weights.pth"})], r"models/net/weights\.pth cannot be read \(Permission")


def test_one_bad_source_out_of_two_leaves_both_as_they_were(folder):
    good, bad = source({"path": "weights.pth"}), source({"path": "weights.pth"}, "0" * 64, "b.pth")
    expect_failure(folder, [good, bad], r"declares 0+ for the source b\.pth")


def test_a_missing_path_is_named(folder):
    expect_failure(folder, [source({"path": "gone.pth"})], r"there is no file or folder models/net/gone\.pth")


def test_a_home_directory_that_there_is_not_is_named(folder):
    unknown = source({"path": "~nobody_of_this_name/weights.pth"})
    expect_failure(folder, [unknown], r"~nobody_of_this_name/weights\.pth: ~ has no home directory on this machine")
    assert "write the full path" in sums_on_disk("net", [unknown])[unknown.name]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path):
    """The address of a web server for tmp_path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_is_asked(folder, address):
    fetch_sources("net", [source({"url": f"{address}/models/net/weights.pth"})], folder)
    assert (folder / "weights.pth").read_bytes() == CONTENT


def test_what_a_web_server_does_not_have_is_named_with_its_answer(folder, address):
    expect_failure(folder, [source({"url": f"{address}/gone.pth"})], r"cannot download http.*/gone\.pth \(.*404")


@pytest.fixture
def closed_port():
    """A port of this machine on which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]  # bound, so that no one else gets it, but not listening


def test_a_server_that_is_not_there_is_named(folder, closed_port):
    url = f"http://127.0.0.1:{closed_port}/weights.pth"
    expect_failure(folder, [source({"url": url})], f"cannot download {url} .*check the address and the network")


@pytest.mark.parametrize("url", ["weights.pth", "file:///gone/weights.pth", "nowhere://weights.pth"])
def test_a_url_that_cannot_be_had_is_named(folder, url):
    expect_failure(folder, [source({"url": url})], f"cannot download {url}")


def test_no_network_is_said_in_one_line(folder, monkeypatch, closed_port):
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    index = f"http://127.0.0.1:{closed_port}/simple"
    for key, value in {"INDEX_URL": index, "CONFIG_FILE": os.devnull, "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    origin = {"wheel": "scikit-learn==1.9.1", "member": "sklearn/__init__.py"}
    expect_failure(
        folder, [source(origin)], "pip cannot download scikit-learn==1.9.1: ERROR: .*[^]]\nCheck the network"
    )


FULL = """
import resource
from pathlib import Path
from onnx_release.data.fetch import download_wheel
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
download_wheel("net==1", Path("downloads"))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of a file")
def test_a_full_folder_for_downloads_is_not_blamed_on_the_network(tmp_path):
    """pip itself copies a wheel of 100 KB where no file may be over 4 KB."""
    info = {"METADATA": "Metadata-Version: 2.1\nName: net\nVersion: 1\n", "RECORD": ""}
    info["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(tmp_path / "net-1-py3-none-any.whl", "w") as archive:
        archive.writestr("net/weights.pth", bytes(100_000))
        for name, text in info.items():
            archive.writestr(f"net-1.dist-info/{name}", text)
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FULL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "StorageError: no space left for net==1, which pip downloads to downloads: free some" in done.stderr


def test_a_server_that_hangs_up_is_named(folder):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def hang_up() -> None:
            server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"
        expect_failure(folder, [source({"url": url})], f"cannot download {url}")


def test_an_address_with_a_space_is_named(folder):
    expect_failure(folder, [source({"url": "http://127.0.0.1/a b"})], "cannot download http://127.0.0.1/a b")


@pytest.fixture
def flowers(folder, tmp_path):
    """Two photographs in the folder models/net/flowers, and what is hidden beside them."""
    for name in ("roses/a.jpg", "tulips/b.jpg", ".DS_Store", "roses/.hidden.jpg", ".git/config"):
        path = tmp_path / "models/net/flowers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "models/net/flowers"


def flowers_sum():
    """By hand, from the definition."""
    names = ["roses/a.jpg", "tulips/b.jpg"]
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_is_copied_as_a_tree_without_what_is_hidden(folder, flowers):
    fetch_sources("net", [source({"path": "flowers"}, flowers_sum(), "photographs")], folder)
    copied = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert copied == {"photographs/roses/a.jpg": b"roses/a.jpg", "photographs/tulips/b.jpg": b"tulips/b.jpg"}


def test_the_sum_of_a_folder_is_what_sha256sum_makes_of_it(flowers):
    command = "find * -type f ! -path '*/.*' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(["sh", "-c", command], cwd=flowers, capture_output=True, text=True, check=True).stdout
    assert tree_sha256(flowers) == flowers_sum() == printed.split()[0]


def test_the_sum_of_a_folder_depends_on_names_and_on_contents(flowers):
    before = tree_sha256(flowers)
    (flowers / "roses/a.jpg").rename(flowers / "tulips/a.jpg")
    (flowers / "roses/c.jpg").write_bytes(b"c")
    moved = tree_sha256(flowers)
    (flowers / "roses/c.jpg").write_bytes(b"d")
    assert len({before, moved, tree_sha256(flowers)}) == 3


def test_a_folder_of_another_sum_is_refused(folder, flowers):
    declared = source({"path": "flowers"}, "0" * 64, "photographs")
    expect_failure(folder, [declared], f"models/net/flowers has the sha256 {flowers_sum()}, .* declares 0000")


@pytest.mark.parametrize("name", ["", "roses"])
def test_an_empty_folder_is_named(folder, flowers, name):
    for path in (flowers / name).rglob("*"):
        if path.is_file():
            path.unlink()
    expect_failure(folder, [source({"path": "flowers"})], f"the folder models/net/flowers.*{name} is empty: put files")


def test_a_folder_that_is_not_there_is_named(folder):
    expect_failure(folder, [source({"path": "../../flowers"})], r"no file or folder models/net/\.\./\.\./flowers")


@pytest.mark.parametrize("target", [".", "gone"])
def test_a_link_in_a_folder_that_leads_to_no_file_is_named(folder, flowers, target):
    (flowers / "link").symlink_to(target)
    expect_failure(folder, [source({"path": "flowers"})], "flowers/link is neither a file nor a real folder")


def test_a_damaged_wheel_is_named(folder, tmp_path, monkeypatch):
    wheel = tmp_path / "net-1-py3-none-any.whl"
    wheel.write_bytes(b"no zip")
    monkeypatch.setattr(fetch, "download_wheel", lambda *_: wheel)
    origin = {"wheel": "net==1", "member": "net/weights.pth"}
    expect_failure(folder, [source(origin)], r"net-1-py3-none-any\.whl is damaged")
