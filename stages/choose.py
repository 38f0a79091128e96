"""Choose the variant to release. Its name alone is written: new timings that choose the same rerun nothing."""

from onnx_release.choice import FALLBACK, choose
from onnx_release.command import run_stage
from onnx_release.files import read_json, write_json
from onnx_release.paths import CHOICE, METRICS
from onnx_release.variants import SHIPPABLE


def main() -> None:
    validations = {variant: read_json(METRICS / "validate" / f"{variant}.json") for variant in SHIPPABLE}
    variant = choose(validations, read_json(METRICS / "benchmark.json"))
    write_json(CHOICE, {"variant": variant or FALLBACK})


if __name__ == "__main__":
    run_stage(main)
