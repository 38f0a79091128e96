"""Let a mixture of experts be exported: its tokens choose their experts' weights by index."""

from typing import Any

import torch


def choose_experts_by_index(network: torch.nn.Module) -> None:
    """Have the experts of transformers' models multiply each token by the weights of its experts, gathered by index.

    By default transformers sorts the tokens by expert and multiplies them group by group, with an operator of its own
    that no exporter knows. Both ways give the same values but for rounding. This one gathers the weights for each
    token, so it needs more memory: https://huggingface.co/docs/transformers/experts_interface.
    """
    for module in network.modules():
        choose: Any = getattr(module, "set_experts_implementation", None)
        if choose:
            choose("batched_mm")  # leaves a model without experts as it is
