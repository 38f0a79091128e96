"""Fill in the texts of a release: MODEL_CARD.md for people, the Dockerfile, and the list of packages."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.paths import MODELS, RAW
from onnx_release.core.spec import Images, Spec
from onnx_release.core.variants import BASE, REDUCED
from onnx_release.data.image_folder import split_folders
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.measure.budget import describe_budget
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, environment
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.release import Manifest
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.validate.metrics import ValidateMetrics

TEMPLATES = Path(__file__).parent / "templates"
BITS = {
    "fp32": "float32",
    "fp16": "weights and arithmetic in float16",
    "int8_dynamic": "8-bit weights of matrix products, whose inputs are quantized in each call",
    "int8_static": "8-bit weights and activations",
}
# The functions of a data.py that a client has to know.
FUNCTIONS = ("decode", "preprocess", "postprocess")


def fill(name: str, **values: Any) -> str:
    """Return the text of a file in templates/, filled in with `values`."""
    return environment(TEMPLATES, autoescape=False).get_template(name).render(values)


@dataclass(frozen=True)
class ReleaseMetrics:
    """The metrics of the released variant; `static` is None unless it is int8_static."""

    summary: SummaryMetrics
    prepare: PrepareMetrics
    validation: ValidateMetrics
    benchmark: BenchmarkMetrics
    static: QuantizeStaticMetrics | None

    @property
    def timing(self) -> ContenderMetrics:
        """The timing metrics of the variant."""
        return self.benchmark.contenders[str(self.summary.variant)]

    def content(self) -> dict[str, Any]:
        """Return what the manifest has of it; from the benchmark its conditions, the variant, and PyTorch eager."""
        benchmark = self.benchmark.content()
        conditions = ("batch", "threads", "machine", "provider", "starts", "rounds", "disturbed_rounds")
        return {
            "summary": self.summary.content(),
            "prepare": self.prepare.content(),
            "validate": self.validation.content(),
            "benchmark": {name: benchmark[name] for name in (*conditions, str(self.summary.variant), BASE)},
        }


def model_card(
    manifest: Manifest, metrics: ReleaseMetrics, spec: Spec, label_count: int, confidence: float, provider: str
) -> str:
    """Write MODEL_CARD.md. `label_count` is 0 without labels; `confidence` is that of the validation's intervals."""
    folder = MODELS / manifest.model
    functions = docstrings(folder / "data.py")
    text = fill(
        "MODEL_CARD.md",
        manifest=manifest,
        metrics=metrics,
        eager=metrics.benchmark.contenders[BASE],
        spec=spec,
        images=spec.images,
        label_count=label_count,
        confidence=confidence,
        gpu=None if provider == CPU else provider.removesuffix("ExecutionProvider").replace("Tensorrt", "TensorRT"),
        image=manifest.model.lower(),
        network=spec.transformers or docstrings(folder / "network.py").get(""),
        data=describe_images(spec.images, RAW / manifest.model) if spec.images else functions.get(""),
        functions={name: functions[name] for name in FUNCTIONS if functions.get(name)},
        decodes=spec.task != "tensor" and (spec.images is not None or "decode" in functions),
        budget=describe_budget(spec.budget) if manifest.variant in REDUCED else "",
        bits=BITS,
        agreement=AGREEMENT,
        details=ANSWER_DETAILS[spec.task],
    )
    return re.sub(r"\n{3,}", "\n\n", text)  # parts that are left out leave empty lines


def docstrings(path: Path) -> Mapping[str, str]:
    """Return the first paragraph of a file's docstring under "", and of its functions' under their names.

    A missing docstring is ""; a missing file has no entries.
    """
    if not path.is_file():
        return {}
    module = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: first_paragraph(node) for node in module.body if isinstance(node, ast.FunctionDef)}
    return {"": first_paragraph(module), **functions}


def first_paragraph(node: ast.Module | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def describe_images(images: Images, raw: Path) -> str:
    official = split_folders(raw / images.folder)
    if official is None:
        parts = f"of which {images.evaluation:.0%} were evaluated on"
    else:
        parts = f"calibrated on those of {official['calibration'].name}/ and evaluated on those of "
        parts += f"{official['evaluation'].name}/"
    return (
        f"photographs in folders by class (`{images.folder}`), {parts}. The shorter side is resized to {images.resize} "
        f"pixels ({images.interpolation}), the middle {images.crop} by {images.crop} are taken, "
        f"scaled to 0..1, less the mean {images.mean}, by the deviation {images.std}."
    )
