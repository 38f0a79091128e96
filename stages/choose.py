"""Choose the variant to release. Its name alone is written: new timings that choose the same rerun nothing."""

from onnx_release.choice import FALLBACK, choose
from onnx_release.command import run_stage
from onnx_release.files import read_json, write_json
from onnx_release.params import load_params
from onnx_release.paths import CHOICE, METRICS
from onnx_release.spec import load_spec
from onnx_release.variants import SHIPPABLE, made_variants


def main() -> None:
    made = made_variants(load_spec(load_params().model))
    validations = {name: read_json(METRICS / "validate" / f"{name}.json") for name in SHIPPABLE if name in made}
    variant = choose(validations, read_json(METRICS / "benchmark.json"))
    write_json(CHOICE, {"variant": variant or FALLBACK})


if __name__ == "__main__":
    run_stage(main)
