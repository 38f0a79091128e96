"""Quantize the float32 model with NNCF's post-training quantization, for benchmarks/quantization.py.

It runs in an environment of its own, since NNCF needs other versions than the pipeline:

    python -m venv .venv-nncf && .venv-nncf/bin/pip install -r benchmarks/requirements-nncf.txt
    python -m benchmarks.quantization --nncf .venv-nncf/bin/python

Arguments: the model, the calibration samples, and a folder for fast.onnx and full.onnx, which differ in the bias
correction. Both use every calibration sample; the preset quantizes activations asymmetrically, like int8_static.
"""

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx

BIAS_CORRECTIONS = {"fast": True, "full": False}


def main(model: Path, samples: Path, folder: Path) -> None:
    arrays = np.load(samples)
    items: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays.files:
        index, _, name = key.partition("/")
        if name:
            items.setdefault(index, {})[name] = arrays[key][np.newaxis]
    for name, fast in BIAS_CORRECTIONS.items():
        quantized = nncf.quantize(
            onnx.load(model),
            nncf.Dataset(list(items.values())),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(items),
            fast_bias_correction=fast,
        )
        onnx.save(quantized, folder / f"{name}.onnx")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
