"""What the CPU at hand does to the answers of INT8."""

from onnx_release.core.hardware import describe_hardware
from onnx_release.graph.targets import TARGETS, choose_target

# Whether it adds products in 16 bits, which weights of 8 bits saturate: such a CPU shows no other target's answers.
SATURATES = choose_target("auto", describe_hardware()).reduce_range


def answers_show(target: str) -> bool:
    """Whether the answers of a model made for `target` are here what they are where it belongs."""
    return TARGETS[target].reduce_range or not SATURATES
