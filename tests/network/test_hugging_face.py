"""Checkpoints as Hugging Face lays them out become networks that go by the names of the spec."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from onnx_release.core.errors import CheckpointError, NetworkError, SpecError
from onnx_release.core.params import Export
from onnx_release.core.spec import Spec
from onnx_release.export.export import export_network
from onnx_release.network.arguments import take_by_name
from onnx_release.network.discover import discover
from onnx_release.network.example_arguments import name_arguments
from onnx_release.network.hugging_face import load_pretrained
from onnx_release.network.network import load_network, run_network
from onnx_release.network.outputs import take_outputs
from onnx_release.runtime.session import open_session, run_session

BATCH = {"batch": {"min": 1, "max": 4, "example": 2}}
IMAGE = {"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3, 32, 32]}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LOGITS = {"name": "logits", "dtype": "float32", "shape": ["batch", 3]}


def spec_of(inputs, outputs, **dimensions):
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "transformers": "AutoModel",
            "dimensions": BATCH | dimensions,
            "inputs": inputs,
            "outputs": outputs,
        }
    )


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A classifier of three classes, and the folder that it was saved to."""
    import transformers  # for seconds, and every process of the tests imports this file

    torch.manual_seed(0)
    config = transformers.ViTConfig.from_dict(TINY | {"image_size": 32, "patch_size": 8, "num_labels": 3})
    return saved(transformers.ViTForImageClassification(config), tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig.from_dict(TINY | {"vocab_size": 50, "max_position_embeddings": 16})
    return saved(transformers.BertModel(config), tmp_path_factory.mktemp("bert"))


def saved(network, folder):
    network.save_pretrained(folder)
    return network.eval(), folder


def copied(folder, target):
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_classifier_needs_no_code_runs_in_float64_and_is_exported(vit, tmp_path):
    original, folder = vit
    spec = spec_of([IMAGE], [LOGITS])
    network = load_pretrained("AutoModelForImageClassification", spec, folder)
    assert not network.training
    inputs = {"pixel_values": np.random.default_rng(0).random((3, 3, 32, 32), np.float32)}
    with torch.inference_mode():
        wanted = original(torch.from_numpy(inputs["pixel_values"])).logits.numpy()
    assert np.array_equal(run_network(network, spec, inputs)["logits"], wanted)
    assert run_network(network.double(), spec, inputs, torch.float64)["logits"] == pytest.approx(wanted, abs=1e-6)
    export_network(network.float(), spec, Export(exporter="dynamo", opset=18), tmp_path / "export")
    outputs = run_session(open_session(tmp_path / "export/model.onnx"), inputs)
    assert outputs["logits"] == pytest.approx(wanted, abs=1e-6)


def test_inputs_and_outputs_go_by_name_whatever_their_order(bert, tmp_path):
    original, folder = bert
    # Neither in the order of BertModel.forward() nor in that of its outputs.
    tokens = [
        {"name": f"{n}", "dtype": "int64", "shape": ["batch", "sequence"]} for n in ("attention_mask", "input_ids")
    ]
    tokens.insert(1, {"name": "token_type_ids", "dtype": "int64", "shape": ["batch", "sequence"]})
    pooled = {"name": "pooler_output", "dtype": "float32", "shape": ["batch", 16]}
    states = {"name": "last_hidden_state", "dtype": "float32", "shape": ["batch", "sequence", 16]}
    spec = spec_of(tokens, [pooled, states], sequence={"min": 2, "max": 16, "example": 8})
    network = load_pretrained("BertModel", spec, folder)
    inputs = {
        "input_ids": np.array([[3, 7, 1, 0, 0], [9, 8, 7, 6, 5]]),
        "attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "token_type_ids": np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1]]),
    }
    with torch.inference_mode():
        wanted = original(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    found = run_network(network, spec, inputs)
    export_network(network, spec, Export(exporter="dynamo", opset=18), tmp_path / "export")
    exported = run_session(open_session(tmp_path / "export/model.onnx"), inputs)
    for name in ("pooler_output", "last_hidden_state"):
        assert np.array_equal(found[name], wanted[name].numpy())
        assert exported[name] == pytest.approx(wanted[name].numpy(), abs=2e-6)


def test_a_checkpoint_in_several_files_is_read_by_its_index(vit, tmp_path):
    original, _ = vit
    original.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    network = load_pretrained("ViTForImageClassification", spec_of([IMAGE], [LOGITS]), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), original.parameters(), strict=True))
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}: declare it under sources"):
        load_pretrained("ViTForImageClassification", spec_of([IMAGE], [LOGITS]), tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("classifier.bias"), r"\n  missing: classifier\.bias\n"),
        (lambda state: state.update(scale=torch.zeros(1)), r"\n  not in the network: scale\n"),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(2)}),
            r"classifier\.bias has the shape \[2\], the network's \[3\]",
        ),
    ],
    ids=["missing", "one too many", "another shape"],
)
def test_weights_that_transformers_would_make_up_or_drop_are_an_error(vit, tmp_path, change, says):
    folder = copied(vit[1], tmp_path)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=says):
        load_pretrained("ViTForImageClassification", spec_of([IMAGE], [LOGITS]), folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_missing_or_damaged_file_is_an_error(vit, tmp_path, name, content):
    folder = copied(vit[1], tmp_path)
    (folder / name).unlink()
    says = f"lacks {name}: declare it under sources"
    if content is not None:
        (folder / name).write_bytes(content)
        says = f"{tmp_path} does not load as ViTForImageClassification: "
    with pytest.raises(CheckpointError, match=says):
        load_pretrained("ViTForImageClassification", spec_of([IMAGE], [LOGITS]), folder)


def test_code_that_comes_with_a_checkpoint_is_not_run(vit, tmp_path):
    folder = copied(vit[1], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match="does not load as AutoModelForImageClassification"):
        load_pretrained("AutoModelForImageClassification", spec_of([IMAGE], [LOGITS]), folder)
    assert not (tmp_path / "ran").exists()


def test_an_input_that_the_network_would_drop_is_refused_with_those_that_it_takes(vit):
    spec = spec_of([IMAGE | {"name": "image"}], [LOGITS])
    with pytest.raises(NetworkError, match=r"ViTForImageClassification has no input image, .* it takes pixel_values, "):
        load_pretrained("ViTForImageClassification", spec, vit[1])


def test_an_output_that_the_network_does_not_give_is_refused_with_those_that_it_gives(vit):
    spec = spec_of([IMAGE], [LOGITS | {"name": "hidden_states"}])
    network = load_pretrained("ViTForImageClassification", spec, vit[1])
    with pytest.raises(NetworkError, match=r"has no output hidden_states, .* it gives logits$"):
        run_network(network, spec, {"pixel_values": np.zeros((1, 3, 32, 32), np.float32)})


@pytest.mark.parametrize("name", ["AutoModelForImageClasification", "logging"])
def test_a_name_that_is_no_network_is_refused(vit, name):
    with pytest.raises(SpecError, match=f"has no network called {name}; did you mean"):
        load_pretrained(name, spec_of([IMAGE], [LOGITS]), vit[1])


def test_load_network_takes_the_class_that_the_spec_names(vit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/tiny").mkdir(parents=True)
    spec = spec_of([IMAGE], [LOGITS]).model_dump(by_alias=True) | {"transformers": "AutoModelForImageClassification"}
    (tmp_path / "models/tiny/spec.yaml").write_text(json.dumps(spec))  # which is YAML too
    network = load_network("tiny", vit[1])
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in vit[0].parameters())


def test_keys_and_values_by_their_paths_are_the_cache_of_a_decoder():
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig.from_dict(TINY | {"vocab_size": 50, "num_key_value_heads": 2})
    network = transformers.LlamaForCausalLM(config).eval()
    ids, past = torch.tensor([[5, 7]]), torch.randn(2, 2, 1, 2, 3, 8)
    cache = transformers.DynamicCache([tuple(layer) for layer in past])
    wanted = network(ids, past_key_values=cache).logits
    take_by_name(network, ["input_ids", *(f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in (0, 1))])
    assert torch.equal(network(ids, *past.flatten(0, 1)).logits, wanted)


@pytest.mark.parametrize("kind", ["T5", "Mamba"])
def test_a_cache_that_is_not_a_decoder_s_is_left_out_of_the_outputs(kind):
    import transformers

    torch.manual_seed(0)
    ids = torch.tensor([[5, 7, 9]])
    if kind == "T5":
        config = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 30}
        network = transformers.T5ForConditionalGeneration(transformers.T5Config.from_dict(config)).eval()
        result = network(input_ids=ids, decoder_input_ids=ids)
    else:
        config = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 30}
        network = transformers.MambaForCausalLM(transformers.MambaConfig.from_dict(config)).eval()
        result = network(ids)
    [logits] = take_outputs(result, ["logits"])
    assert logits.shape == (1, 3, 30)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])  # its newer and its older name
def test_the_sizes_of_a_decoder_s_cache_and_mask_are_read_from_it(name):
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig.from_dict(TINY | {"vocab_size": 50, "num_key_value_heads": 2})
    past: Any = tuple((torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)) for _ in range(2))
    examples = {
        "input_ids": torch.tensor([[5, 7, 9]]),
        "attention_mask": torch.ones(1, 8, dtype=torch.int64),
        name: transformers.DynamicCache(past) if name == "cache" else past,
    }
    network = transformers.LlamaForCausalLM(config).eval()
    found = discover(network, name_arguments(network, examples))
    shapes = {tensor.name: tensor.shape for tensor in found.inputs}
    assert shapes["input_ids"] == ("batch", "sequence")
    assert shapes[f"{name}.1.1"] == ("batch", 2, "past", 8)
    assert shapes["attention_mask"] == ("batch", "sequence + past")
    outputs = {tensor.name: tensor.shape for tensor in found.outputs}
    assert outputs["logits"] == ("batch", "sequence", 50) and len(outputs) == 5
    assert found.derived[str(outputs["cache.0.1"][2])] == "sequence + past"
