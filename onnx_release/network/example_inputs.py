"""Make inputs of declared sizes, for a trace or a trial of the network."""

import torch

from onnx_release.core.spec import Spec, concrete_shape
from onnx_release.network.shape_cases import Sizes


def example_inputs(spec: Spec, sizes: Sizes) -> tuple[torch.Tensor, ...]:
    """Make inputs of these sizes: floats from a standard normal distribution, else ones."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for tensor in spec.inputs:
        dtype = getattr(torch, tensor.dtype)
        shape = concrete_shape(tensor, sizes)
        if dtype.is_floating_point:
            examples.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            examples.append(torch.ones(shape, dtype=dtype))
    return tuple(examples)
