"""config.pbtxt, with which NVIDIA's Triton Inference Server runs a released model."""

import json

from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec, Tensor, rows_are_the_batch
from onnx_release.runtime.providers import CPU

# https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md#datatypes
DATA_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
# https://github.com/triton-inference-server/onnxruntime_backend#model-config-options; without one, all of them.
LEVELS = {"disabled": 2, "basic": -1, "extended": 1}


def triton_config(model: str, spec: Spec, runtime: Runtime, provider: str) -> str:
    """The text of triton/`model`/config.pbtxt, in protobuf's text format.

    Requests are run together, up to the largest batch that the spec allows, where every output has the batch as its
    first axis and it is nowhere else. Otherwise Triton passes each request on as it is: max_batch_size 0, all axes.
    """
    largest = largest_batch(spec)
    lines = [f"name: {quoted(model)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {largest}"]
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        lines += [f"{kind} [", ",\n".join(described(tensor, batched=largest > 0) for tensor in tensors), "]"]
    if largest:
        lines.append("dynamic_batching { }")
    kind = "KIND_CPU" if provider == CPU else "KIND_GPU"
    lines.append(f"instance_group [ {{ count: 1 kind: {kind} }} ]")
    if runtime.graph_optimization in LEVELS:
        lines.append(f"optimization {{ graph {{ level: {LEVELS[runtime.graph_optimization]} }} }}")
    lines += [
        f"parameters {{ key: {quoted(key)} value: {{ string_value: {quoted(value)} }} }}"
        for key, value in parameters(runtime).items()
    ]
    return "\n".join(lines) + "\n"


def largest_batch(spec: Spec) -> int:
    """The largest batch that Triton may make of several requests; 0 where it must not make any."""
    batch = spec.inputs[0].shape[0]
    if isinstance(batch, int) or not rows_are_the_batch(spec):
        return 0
    return spec.dimensions[batch].max


def described(tensor: Tensor, batched: bool) -> str:
    """An input or output; Triton adds the batch by itself where there is one, and takes no empty list of axes."""
    axes = tensor.shape[1:] if batched else tensor.shape
    dims = ", ".join("-1" if isinstance(axis, str) else str(axis) for axis in axes)
    shape = f"dims: [ {dims} ]" if axes else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"  {{ name: {quoted(tensor.name)} data_type: {DATA_TYPES[tensor.dtype]} {shape} }}"


def parameters(runtime: Runtime) -> dict[str, str]:
    """The settings that differ from ONNX Runtime's defaults, where Triton's backend has a name for them."""
    found = {}
    if runtime.intra_threads is not None:
        found["intra_op_thread_count"] = str(runtime.intra_threads)
    if runtime.execution_mode == "parallel":
        found["execution_mode"] = "1"
        found["inter_op_thread_count"] = str(runtime.inter_threads or 0)  # 0: every core
    if not runtime.arena:
        found["enable_mem_arena"] = "0"
    if not runtime.memory_pattern:
        found["enable_mem_pattern"] = "0"
    return found


def quoted(text: str) -> str:
    """A string of protobuf's text format, whose escapes of these characters are JSON's."""
    return json.dumps(text, ensure_ascii=False)
