"""Write the parameters of one model, with the target of its INT8 and the provider that runs it on this machine."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_json
from onnx_release.core.params import merge_params, write_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.graph.probe import find_provider
from onnx_release.graph.targets import choose_target


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params = merge_params(files)
    target = choose_target(params.quantize_static.target, read_json(HARDWARE))
    provider = find_provider(params.runtime)
    write_params(files, params, spec)
    write_json(files.target, {"target": target.name})
    write_json(files.provider, provider)
    if provider["note"]:
        print(provider["note"], file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
