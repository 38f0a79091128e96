"""Fetch the model's weights and data, each file checked against its sha256."""

from onnx_release.command import run_stage
from onnx_release.fetch import fetch_sources
from onnx_release.params import load_params
from onnx_release.paths import RAW
from onnx_release.spec import load_spec


def main() -> None:
    model = load_params().model
    fetch_sources(model, load_spec(model).sources, RAW / model)


if __name__ == "__main__":
    run_stage(main)
