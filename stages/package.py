"""Put the chosen variant and all that it needs to run into artifacts/release/, or write there why none is released."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import load_params
from onnx_release.core.paths import RELEASE
from onnx_release.packaging.package import package
from onnx_release.runtime.settings import load_runtime


def main() -> None:
    params = load_params()
    with replacing_folder(RELEASE) as partial:
        package(params.model, load_runtime(params.runtime), params.validate_.confidence, partial)


if __name__ == "__main__":
    run_stage(main)
