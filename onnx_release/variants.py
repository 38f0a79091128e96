"""The files that the pipeline makes of one network, in the order of the pipeline."""

# What dvc.yaml validates and times, in this order.
VARIANTS = ("export", "fp32")
# The raw export is there to be compared with; it never ships.
SHIPPABLE = ("fp32",)
