"""Save the graph that ONNX Runtime makes of the chosen variant on this CPU, and measure the load time that it saves."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, replacing_folder, write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CHOICE, EVALUATION_SAMPLES, OPTIMIZED, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.performance.optimize import compare_files, optimize, ready_made
from onnx_release.runtime.release import RUNTIME


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    variant = read_json(CHOICE)["variant"]
    runtime = params.runtime.model_copy(update={"provider": "cpu"})
    batches = real_batches(SampleFile(EVALUATION_SAMPLES), params.benchmark.batches[0], spec)
    with replacing_folder(OPTIMIZED) as partial:
        path = optimize(variant_model(variant), partial, runtime)
        metrics = compare_files(variant, variant_model(variant), path, spec, runtime, batches)
        write_json(partial / RUNTIME, ready_made(runtime).model_dump())
    metrics.write()


if __name__ == "__main__":
    run_stage(main)
