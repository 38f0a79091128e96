"""Write a file for each model with the sha256 of what its sources are copied from, so that a change reruns fetch."""

import argparse

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ReleaseError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.model_list import load_models, refuse_shorter_list
from onnx_release.core.paths import ON_DISK
from onnx_release.core.spec import load_spec
from onnx_release.data.fetch import sums_on_disk


def main(_: argparse.Namespace) -> None:
    models = load_models()
    refuse_shorter_list(models)
    with replacing_folder(ON_DISK) as partial:
        for model in models:
            try:
                sums = sums_on_disk(model, load_spec(model).sources)
            except ReleaseError as error:  # the model's own stages say so, and those of the other models run
                sums = {"error": str(error)}
            write_json(partial / f"{model}.json", sums)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
