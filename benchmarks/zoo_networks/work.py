"""Do what runs in a process of its own, in the clone. What needs torch is imported here, where it is used."""

import shutil
from pathlib import Path
from typing import Any

ANSWER = Path("zoo.txt")
# A folder of the clone, so that messages that name a file in it are the same on every machine.
CONVERTED = Path("converted")


def read_answer(clone: Path) -> str:
    """Return what the last process wrote."""
    return (clone / ANSWER).read_text()


def write_model(name: str) -> None:
    """Write models/`name`."""
    from benchmarks.zoo_networks.folder import write_folder

    write_folder(name, Path("models") / name)


def convert_plainly(name: str, exporter: str) -> None:
    """Write why torch.onnx.export alone does not convert the network rightly, or nothing."""
    from benchmarks.zoo_networks.plain import convert, first_line

    shutil.rmtree(CONVERTED, ignore_errors=True)  # of a process that crashed
    CONVERTED.mkdir()
    try:
        answer = convert(name, exporter, CONVERTED)
    except Exception as cause:  # the exporters may raise anything
        answer = first_line(cause)
    shutil.rmtree(CONVERTED)
    ANSWER.write_text(answer)


def quantize_plainly(name: str) -> None:
    """Write the sqnr_db of onnxruntime's own static quantizer, with its defaults and a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from onnx_release.core.params import load_params
    from onnx_release.core.paths import ModelFiles
    from onnx_release.core.spec import load_spec
    from onnx_release.data.model_data import load_data
    from onnx_release.data.samples import SampleFile
    from onnx_release.runtime.onnx_model import OnnxModel
    from onnx_release.runtime.settings import load_runtime
    from onnx_release.validate.validate import budget_of, validate

    files, spec = ModelFiles(name), load_spec(name)
    samples = SampleFile(files.calibration_samples)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            items = (samples.inputs(number) for number in range(len(samples)))
            self.items = iter([{key: value[None] for key, value in item.items()} for item in items])

        def get_next(self) -> Any:
            return next(self.items, None)

    prepared, quantized = files.artifacts / "prepared.onnx", files.artifacts / "rival.onnx"
    quant_pre_process(files.variant("fp32"), prepared, skip_symbolic_shape=True)
    quantize_static(prepared, quantized, Reader(), per_channel=True)
    params = load_params(files)
    runtime = load_runtime(files, params.runtime).model_copy(update={"intra_threads": 1})
    onnx_model = OnnxModel(quantized, spec, runtime)
    metrics, _ = validate(onnx_model, load_data(name), files, params.validate_, budget_of("int8_static", spec))
    ANSWER.write_text(str(metrics.sqnr_db))
