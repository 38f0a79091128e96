"""Put the chosen variant and all that it needs to run into the folder of the release, or write there why none is."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.packaging.package import package
from onnx_release.runtime.settings import load_runtime


def main(model: str) -> None:
    files = ModelFiles(model)
    params = load_params(files)
    with replacing_folder(files.release) as partial:
        package(files, load_runtime(files, params.runtime), params.validate_.confidence, partial)


if __name__ == "__main__":
    run_stage(main)
