"""Choose the variant to release and say why. Its name has a file of its own, so that new timings may rerun nothing."""

from onnx_release.choice.choice import FALLBACK, read_validated, summarise
from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import made_variants
from onnx_release.graph.graph import model_size_mb
from onnx_release.timing.metrics import BenchmarkMetrics


def main(model: str) -> None:
    files, spec, benchmark = ModelFiles(model), load_spec(model), BenchmarkMetrics.read(model)
    validated = read_validated(model, made_variants(spec), benchmark)
    sizes_mb = {one.name: model_size_mb(files.variant(one.name)) for one in validated.candidates}
    summary = summarise(validated, sizes_mb, benchmark)
    write_json(files.choice, {"variant": summary.variant or FALLBACK})
    summary.write(model)


if __name__ == "__main__":
    run_stage(main)
