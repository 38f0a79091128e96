"""Choose the variant to release. Its name alone is written: new timings that choose the same rerun nothing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CHOICE, METRICS
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import SHIPPABLE, made_variants
from onnx_release.validate.choice import FALLBACK, choose


def main() -> None:
    made = made_variants(load_spec(load_params().model))
    validations = {name: read_json(METRICS / "validate" / f"{name}.json") for name in SHIPPABLE if name in made}
    variant = choose(validations, read_json(METRICS / "benchmark.json"))
    write_json(CHOICE, {"variant": variant or FALLBACK})


if __name__ == "__main__":
    run_stage(main)
