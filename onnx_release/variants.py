"""The files that the pipeline makes of one network, in the order of the pipeline."""

# What dvc.yaml validates and times, in this order.
VARIANTS = ("export", "fp32")
# What every speed-up is relative to: PyTorch as it is.
BASE = "torch_eager"
# The raw export is there to be compared with; it never ships.
SHIPPABLE = ("fp32",)
