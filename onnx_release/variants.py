"""The files that the pipeline makes of one network, in the order of the pipeline."""

# What dvc.yaml validates and times, in this order.
VARIANTS = ("export", "fp32", "fp16", "int8_dynamic", "int8_static")
# What every speed-up is relative to: PyTorch as it is.
BASE = "torch_eager"
# Fewer bits than float32: these pass within the budget, the others within PyTorch's own rounding.
REDUCED = ("fp16", "int8_dynamic", "int8_static")
# What `explain` holds a variant against, as a folder below artifacts/: quantization starts from the equalized model.
REFERENCES = {"fp32": "export", "fp16": "fp32", "int8_dynamic": "fp32", "int8_static": "calibration"}
# The raw export is there to be compared with; it never ships.
SHIPPABLE = ("fp32", *REDUCED)
