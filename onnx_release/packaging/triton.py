"""Write config.pbtxt, with which NVIDIA's Triton Inference Server runs a released model."""

import json

from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec, Tensor, batch_dimension, rows_are_the_batch
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
# https://github.com/triton-inference-server/onnxruntime_backend#model-config-options; without a level, all are on.
TRITON_LEVELS = {"disabled": 2, "basic": -1, "extended": 1}


def triton_config(model: str, spec: Spec, runtime: Runtime, provider: str) -> str:
    """Return the text of triton/`model`/config.pbtxt, in protobuf's text format.

    If the batch is the first axis of every output, and no other axis, Triton runs requests together, up to the largest
    batch that the spec allows. Otherwise it passes each request on as it is: max_batch_size 0, all axes.
    """
    largest = largest_batch(spec)
    lines = [f"name: {quoted(model)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {largest}"]
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        lines += [f"{kind} [", ",\n".join(tensor_entry(tensor, batched=largest > 0) for tensor in tensors), "]"]
    if largest:
        lines.append("dynamic_batching { }")
    kind = "KIND_CPU" if provider == CPU else "KIND_GPU"
    lines.append(f"instance_group [ {{ count: 1 kind: {kind} }} ]")
    if runtime.graph_optimization in TRITON_LEVELS:
        lines.append(f"optimization {{ graph {{ level: {TRITON_LEVELS[runtime.graph_optimization]} }} }}")
    lines += [
        f"parameters {{ key: {quoted(key)} value: {{ string_value: {quoted(value)} }} }}"
        for key, value in parameters(runtime).items()
    ]
    return "\n".join(lines) + "\n"


def largest_batch(spec: Spec) -> int:
    """Return the largest batch that Triton may make of several requests; 0 if it must not make any."""
    batch = batch_dimension(spec)
    return spec.dimensions[batch].max if isinstance(batch, str) and rows_are_the_batch(spec) else 0


def tensor_entry(tensor: Tensor, batched: bool) -> str:
    """Describe an input or output. Triton adds the batch axis itself, and does not take an empty list of axes."""
    axes = tensor.shape[1:] if batched else tensor.shape
    dims = ", ".join("-1" if isinstance(axis, str) else str(axis) for axis in axes)
    shape = f"dims: [ {dims} ]" if axes else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"  {{ name: {quoted(tensor.name)} data_type: {DATA_TYPES[tensor.dtype]} {shape} }}"


def parameters(runtime: Runtime) -> dict[str, str]:
    """Return the settings that differ from ONNX Runtime's defaults and have a name in Triton's backend."""
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
    """Quote a string for protobuf's text format, which escapes these characters like JSON."""
    return json.dumps(text, ensure_ascii=False)
