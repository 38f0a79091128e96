"""Profile the chosen variant on real samples: time by operator and by node, and a trace for chrome://tracing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.graph.graph import load_model
from onnx_release.performance.profiling import known_sources, node_rows, profile_metrics, profile_model
from onnx_release.runtime.settings import load_runtime


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params, variant = load_params(files), read_json(files.choice)["variant"]
    timing = profile_model(
        files.variant(variant),
        spec,
        load_runtime(files, params.runtime),
        real_batches(SampleFile(files.evaluation_samples), params.benchmark.batches[0], spec, load_data(model)),
        params.profile.calls,
        files.trace,
    )
    known = known_sources(load_model(files.variant("export"), weights=False), read_json(files.sources))
    write_rows(files.plots / "profile.csv", node_rows(timing, known))
    profile_metrics(timing, variant).write(model)


if __name__ == "__main__":
    run_stage(main)
