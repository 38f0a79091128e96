"""Profile the chosen variant on real samples: time by operator and by node, and a trace for chrome://tracing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import CHOICE, EVALUATION_SAMPLES, PLOTS, SOURCES, TRACE, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.graph.graph import load_model
from onnx_release.performance.profiling import known_sources, node_rows, profile_metrics, profile_model
from onnx_release.runtime.settings import load_runtime


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    variant = read_json(CHOICE)["variant"]
    timing = profile_model(
        variant_model(variant),
        spec,
        load_runtime(params.runtime),
        real_batches(SampleFile(EVALUATION_SAMPLES), params.benchmark.batches[0], spec),
        params.profile.calls,
        TRACE,
    )
    known = known_sources(load_model(variant_model("export"), weights=False), read_json(SOURCES))
    write_rows(PLOTS / "profile.csv", node_rows(timing, known))
    profile_metrics(timing, variant).write()


if __name__ == "__main__":
    run_stage(main)
