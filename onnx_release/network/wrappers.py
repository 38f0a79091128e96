"""Take a network out of what training wraps around it: torch.compile, and the modules that train it in parallel."""

import torch

PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
COMPILED = "_orig_mod"  # in a module of torch.compile; the import of its class alone takes seconds


def unwrapped(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network without its wrappers, and without those of its own modules, which it changes in place.

    A compiled network cannot be captured: its forward() has the parameters *args and **kwargs, and calls a compiler.
    """
    while COMPILED in network._modules or isinstance(network, PARALLEL):
        network = getattr(network, COMPILED if COMPILED in network._modules else "module")
    if network._compiled_call_impl is not None:  # of network.compile(), which wraps nothing
        network._compiled_call_impl = None
    for name, child in list(network._modules.items()):
        inner = None if child is None else unwrapped(child)
        if inner is not child:
            setattr(network, name, inner)
    return network
