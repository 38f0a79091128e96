"""Save the graph that ONNX Runtime makes of the chosen variant on this CPU, and measure the load time that it saves."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, replacing_folder, write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.performance.optimize import compare_files, optimize, ready_made
from onnx_release.runtime.release import RUNTIME


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params, variant = load_params(files), read_json(files.choice)["variant"]
    runtime = params.runtime.model_copy(update={"provider": "cpu"})
    batches = real_batches(SampleFile(files.evaluation_samples), params.benchmark.batches[0], spec, load_data(model))
    with replacing_folder(files.optimized) as partial:
        path = optimize(files.variant(variant), partial, runtime)
        metrics = compare_files(variant, files.variant(variant), path, spec, runtime, batches)
        write_json(partial / RUNTIME, ready_made(runtime).model_dump())
    metrics.write(model)


if __name__ == "__main__":
    run_stage(main)
