"""Measure padding, dynamic INT8 in batches, and recipes for dynamic INT8, for docs/sequences.md.

    python -m benchmarks.sequences

writes benchmarks/sequences.json. Accuracy is measured on the evaluation texts with one thread, compared with PyTorch in
float32 as in `validate`. Speed-ups over fp32 are at batch 1 and the `example` size on every core, each model in a
process of its own, in interleaved rounds, with the interval of the benchmark. Needs a finished `make repro
MODEL=minilm`, and an idle machine. Takes about three minutes on 2 cores.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import Runtime, load_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.types import Arrays, Embedding
from onnx_release.data.samples import NO_LABEL, SampleFile, real_batches, sample_key, spread_evenly, with_batch_axis
from onnx_release.graph.activations import step_by_step
from onnx_release.graph.graph import load_model, model_size_mb
from onnx_release.graph.precision import only_errors
from onnx_release.measure.answers import compare_answers
from onnx_release.network.network import load_network, run_network
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.timing.benchmark import measure, speedups
from onnx_release.timing.contenders import Contender

RESULT = Path("benchmarks/sequences.json")
FILES = ModelFiles("minilm")
SPEC = load_spec(FILES.model)
LONGEST = SPEC.dimensions["sequence"].max
FEW = 20  # texts for PyTorch in float64, which is slow
BATCH = 8
CHUNK = 16  # texts whose intermediate values are computed at once
WIDE = (1536, 384)  # the shape of weights of products whose input has a few values far larger than the others

Embed = Callable[[Arrays], np.ndarray]


def main(_: argparse.Namespace) -> None:
    params, hardware = load_params(FILES), read_json(HARDWARE)
    samples = SampleFile(FILES.evaluation_samples)
    texts = [samples.inputs(index) for index in range(len(samples))]
    few = [texts[index] for index in spread_evenly(len(texts), FEW)]
    int8, fp32 = embedder(FILES.variant("int8_dynamic")), FILES.variant("fp32")
    ways = {
        "each text alone": embeddings(int8, texts),
        f"each padded to {LONGEST} tokens": embeddings(int8, texts, length=LONGEST),
        f"batches of {BATCH}, padded to their longest text": embeddings(int8, texts, batch=BATCH),
    }
    result = {
        "model": FILES.model,
        "machine": machine_name(hardware),
        "texts": len(texts),
        "tokens": {"least": min(map(tokens, texts)), "median": float(np.median([tokens(text) for text in texts]))},
        "padding": paddings(texts, few),
        "batches": [{"name": name, **against_torch(found)} for name, found in ways.items()],
        "wide_products": wide_inputs(load_model(fp32), texts),
    }
    with tempfile.TemporaryDirectory() as folder:
        models = {"fp32": fp32, **recipes(fp32, params.quantize_dynamic.operators, Path(folder))}
        runtime = Runtime(provider="cpu", intra_threads=hardware["cores"])
        entries = [Contender(name, "onnx", str(path), FILES.raw, SPEC, runtime) for name, path in models.items()]
        run = measure(entries, real_batches(samples, 1, SPEC, None), params.benchmark)
        found = run.measurements
        result["disturbed_rounds"] = run.disturbed  # by other work on the machine; if it is not 0, measure again
        result["recipes"] = [
            {
                "name": name,
                **speedups("speedup", "speedup", found["fp32"], found[name], params.benchmark),
                **model_metrics(path, texts),
            }
            for name, path in models.items()
        ]
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def paddings(texts: Sequence[Arrays], few: Sequence[Arrays]) -> list[dict[str, Any]]:
    """Return `padding` of PyTorch in float64 on a few texts, since it is slow, and of the variants on all texts."""
    network = load_network(FILES.model, FILES.raw).to(torch.float64)
    rows = [("PyTorch in float64", lambda batch: run_network(network, SPEC, batch, torch.float64)["embedding"], few)]
    rows += [(name, embedder(FILES.variant(name)), texts) for name in ("fp32", "fp16", "int8_dynamic")]
    return [{"name": name, **padding(embed, some)} for name, embed, some in rows]


def padding(embed: Embed, texts: Sequence[Arrays]) -> dict[str, float]:
    """Return the largest difference between embeddings of padded texts and of the texts alone, up to LONGEST tokens."""
    texts = [text for text in texts if tokens(text) < LONGEST]
    alone, found = embeddings(embed, texts), {}
    for name, more in {"by_1": 1, "by_7": 7, "to_longest": LONGEST}.items():
        padded = [embeddings(embed, [text], length=min(tokens(text) + more, LONGEST)) for text in texts]
        found[name] = float(np.abs(np.concatenate(padded) - alone).max())
    return {"texts": len(texts), **found}


def embedder(path: Path) -> Embed:
    model = OnnxModel(path, SPEC, Runtime(provider="cpu", intra_threads=1))
    return lambda batch: model.run(batch)["embedding"]


def tokens(text: Arrays) -> int:
    return len(text["input_ids"])


def embeddings(embed: Embed, texts: Sequence[Arrays], batch: int = 1, length: int = 0) -> np.ndarray:
    """Return the embeddings [n, 384] of the texts, in batches in their order.

    A batch is padded to its longest text and to at least `length` tokens, with 0 in all three inputs: the token [PAD],
    masked.
    """
    found = []
    for start in range(0, len(texts), batch):
        rows = texts[start : start + batch]
        size = max(length, *(tokens(text) for text in rows))
        found.append(
            embed({key: np.stack([np.pad(text[key], (0, size - tokens(text))) for text in rows]) for key in rows[0]})
        )
    return np.concatenate(found)


def against_torch(found: np.ndarray) -> dict[str, float]:
    """Compare the embeddings of all evaluation texts with PyTorch's, by `compare_answers`."""
    reference = ArrayFile(FILES.reference_samples)
    wanted = [reference.folder(f"{sample_key(index)}/float32")["embedding"][0] for index in range(len(found))]
    rows = compare_answers(SPEC, list(map(Embedding, wanted)), list(map(Embedding, found)), [NO_LABEL] * len(found))
    cosines = [row["cosine"] for row in rows]
    same = float(np.mean([row["agrees"] for row in rows]))
    return {"mean_cosine": float(np.mean(cosines)), "least_cosine": min(cosines), "same_neighbour": same}


def recipes(source: Path, operators: list[str], folder: Path) -> dict[str, Path]:
    """Quantize `source` with onnxruntime's dynamic quantizer; with VNNI the first is the pipeline's int8_dynamic."""
    kinds: dict[str, dict[str, Any]] = {
        "a scale for each output channel, 8 bits": {"per_channel": True},
        "with weights of 7 bits, for CPUs without VNNI": {"per_channel": True, "reduce_range": True},
        "with one scale for all weights of a layer": {},
        "with the products from 1,536 to 384 in float": {
            "per_channel": True,
            "nodes_to_exclude": [node.name for node in wide_products(load_model(source))],
        },
    }
    for index, options in enumerate(kinds.values()):
        options |= {"op_types_to_quantize": operators, "weight_type": QuantType.QInt8}
        with only_errors():
            quantize_dynamic(load_model(source), folder / f"{index}.onnx", **options)
    return {name: folder / f"{index}.onnx" for index, name in enumerate(kinds)}


def model_metrics(path: Path, texts: Sequence[Arrays]) -> dict[str, float]:
    quantized = sum(node.op_type == "MatMulInteger" for node in load_model(path).graph.node)
    found = against_torch(embeddings(embedder(path), texts))
    return {"size_mb": model_size_mb(path), "quantized": quantized, **found}


def wide_products(model: ModelProto) -> list[NodeProto]:
    weights = {tensor.name for tensor in model.graph.initializer if tuple(tensor.dims) == WIDE}
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def wide_inputs(model: ModelProto, texts: Sequence[Arrays]) -> list[dict[str, float]]:
    """Describe the absolute values of the input of each of `wide_products`.

    `largest_at_least` and `largest_at_most` bound the largest value of a text; `quantile_999` is the 0.999 quantile.
    """
    names, found = [node.input[0] for node in wide_products(model)], []
    for values in step_by_step(model, names, [with_batch_axis(text) for text in texts], CHUNK):
        sizes = [np.abs(array).ravel() for array in values]
        tops, within = [float(size.max()) for size in sizes], float(np.quantile(np.concatenate(sizes), 0.999))
        found.append({"largest_at_least": min(tops), "largest_at_most": max(tops), "quantile_999": within})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run_tool(main, parser)
