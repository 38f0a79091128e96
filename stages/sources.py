"""Write the sha256 of the files and folders that the model's sources are copied from, so that a change reruns fetch."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import ON_DISK
from onnx_release.core.spec import load_spec
from onnx_release.data.fetch import sums_on_disk


def main() -> None:
    model = load_params().model
    write_json(ON_DISK / f"{model}.json", sums_on_disk(model, load_spec(model).sources))


if __name__ == "__main__":
    run_stage(main)
