"""Fetch the files and folders that a model's spec declares, each checked against its sha256."""

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from onnx_release.errors import SourceError
from onnx_release.files import replacing_folder, sha256
from onnx_release.paths import MODELS
from onnx_release.spec import Source

URL_TIMEOUT_SECONDS = 60


def fetch_sources(model: str, sources: list[Source], folder: Path) -> None:
    """Fill `folder` with every source under its name; `folder` is replaced only once all are there and right.

    Raises SourceError for a source that is not to be had or is not the declared one.
    """
    with replacing_folder(folder) as partial, tempfile.TemporaryDirectory() as downloads:
        for source in sources:
            target = partial / source.name
            fetch_source(model, source, target, Path(downloads))
            found = tree_sha256(target) if target.is_dir() else sha256(target)
            if found != source.sha256:
                raise SourceError(
                    f"{source.name} has the sha256 {found}, models/{model}/spec.yaml declares {source.sha256}: "
                    "what was fetched is damaged or another version. Only if you trust it, declare the new sum"
                )


def fetch_source(model: str, source: Source, target: Path, downloads: Path) -> None:
    """Write one source to `target`, unchecked; a wheel is downloaded to `downloads` once for all its members."""
    origin = source.origin
    if origin.wheel is not None and origin.member is not None:
        copy_member(download_wheel(origin.wheel, downloads), origin.member, target)
    elif origin.url is not None:
        download(origin.url, target)
    elif origin.path is not None:
        path = MODELS / model / Path(origin.path).expanduser()
        if path.is_dir():
            copy_tree(path, target)
        elif path.is_file():
            shutil.copyfile(path, target)
        else:
            raise SourceError(f"{source.name}: there is no file or folder {path}, as models/{model}/spec.yaml declares")


def copy_tree(folder: Path, target: Path) -> None:
    """Copy what `tree_files` lists to the same places below `target`."""
    for path in tree_files(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def tree_sha256(folder: Path) -> str:
    """The sha256 of a folder: of one line a file, its sha256, two spaces and its path, as `sha256sum` prints it.

    Paths are below the folder, with slashes, and in the order of `tree_files`.
    """
    digest = hashlib.sha256()
    for path in tree_files(folder):
        line = f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def tree_files(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted by its path there as text. What is hidden, by a leading dot, is left out.

    Raises SourceError for an empty folder, which a copy of the files would lose, and for a link to a folder, which may
    lead anywhere.
    """
    files, waiting = [], [folder]
    while waiting:
        current = waiting.pop()
        entries = [path for path in current.iterdir() if not path.name.startswith(".")]
        if not entries:
            raise SourceError(f"the folder {current} is empty: put files there, or remove it")
        for path in entries:
            if path.is_file():
                files.append(path)
            elif path.is_dir() and not path.is_symlink():
                waiting.append(path)
            else:
                raise SourceError(f"{path} is neither a file nor a folder of its own: put there what it links to")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def download_wheel(requirement: str, downloads: Path) -> Path:
    """The wheel for `requirement`, through pip, whose own settings for index, proxy and retries hold."""
    folder = downloads / requirement
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr.strip()]
            raise SourceError(
                f"pip cannot download {requirement}: {lines[-1]}\n"
                "Check the network, and pip's index and proxy settings (`pip config list`)"
            )
    return next(folder.glob("*.whl"))


def copy_member(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except KeyError as cause:
        raise SourceError(f"{wheel.name} has no member {member}") from cause
    except zipfile.BadZipFile as cause:
        raise SourceError(f"{wheel.name} is damaged ({cause}): fetch it again") from cause


def download(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as cause:
        raise SourceError(f"cannot download {url} ({cause}): check the address and the network") from cause
