"""Look for runtime settings that make the chosen variant faster here, and write those that do."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, replacing_folder, write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CHOICE, EVALUATION_SAMPLES, HARDWARE, RAW, TUNED, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.runtime.settings import load_runtime
from onnx_release.timing.contenders import Contender
from onnx_release.tuning.tune import tune, tune_metrics


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    variant = read_json(CHOICE)["variant"]
    batches = real_batches(SampleFile(EVALUATION_SAMPLES), params.benchmark.batches[0], spec)
    entry = Contender(
        variant, "onnx", str(variant_model(variant)), RAW / params.model, spec, load_runtime(params.runtime)
    )
    cores = read_json(HARDWARE)["cores"]
    tuned = tune(entry, batches, params.benchmark, params.tune.seconds, cores)
    with replacing_folder(TUNED.parent) as partial:
        write_json(partial / TUNED.name, tuned.runtime.model_dump())
    tune_metrics(variant, tuned).write()


if __name__ == "__main__":
    run_stage(main)
