"""minilm: padding does not change an embedding, the graph takes every size, and texts become what the spec declares."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models.minilm import data
from onnx_release.core.array_files import writing_arrays
from onnx_release.core.errors import CheckpointError, DataError
from onnx_release.core.params import Export, Slim
from onnx_release.core.spec import load_spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import SampleFile, check_sample, write_samples
from onnx_release.export.export import export_network
from onnx_release.export.slim import slim_model
from onnx_release.network.network import run_network
from onnx_release.runtime.session import open_session, run_session
from tests.imports import ROOT, third_party

WIDTH = 12
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture
def spec(monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_spec("minilm")


@pytest.fixture(scope="module")
def minilm():
    """The model's network.py, which imports transformers for seconds; every process of the tests imports this file."""
    from models.minilm import network

    return network


@pytest.fixture
def raw(tmp_path, minilm):
    """A folder as data/raw/minilm, with one small layer of random weights and the numbers that old files have."""
    config = minilm.BertConfig(
        vocab_size=40,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    config.to_json_file(tmp_path / minilm.CONFIG)
    torch.manual_seed(0)
    numbers = torch.arange(256).expand(1, -1).contiguous()
    state = {**minilm.BertModel(config).state_dict(), "embeddings.position_ids": numbers}
    save_file(state, tmp_path / minilm.CHECKPOINT)
    return tmp_path


def batch(lengths, size):
    """Random tokens of these lengths, padded to `size`."""
    random = np.random.default_rng(0)
    ids, mask = np.zeros((2, len(lengths), size), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = random.integers(1, 40, length)
        mask[row, :length] = 1
    return dict(zip(NAMES, (ids, mask, np.zeros_like(ids)), strict=True))


def embeddings(network, spec, inputs, dtype=torch.float64):
    return run_network(network.to(dtype), spec, inputs, dtype)["embedding"]


def test_an_embedding_is_the_mean_over_the_tokens_scaled_to_length_one(raw, spec, minilm):
    network, inputs = minilm.build(raw), batch([5], 5)
    assert not network.training
    found = embeddings(network, spec, inputs)
    with torch.inference_mode():
        states = network.bert(torch.from_numpy(inputs["input_ids"])).last_hidden_state.numpy()
    assert found.dtype == np.float64
    assert found[0] == pytest.approx(states[0].mean(0) / np.linalg.norm(states[0].mean(0)), abs=1e-12)


def test_padding_does_not_change_an_embedding(raw, spec, minilm):
    network = minilm.build(raw)
    alone, padded = batch([7], 7), batch([7], 30)
    expected = embeddings(network, spec, alone)
    assert embeddings(network, spec, padded) == pytest.approx(expected, abs=1e-12)
    seen = {**padded, "attention_mask": np.ones((1, 30), np.int64)}
    assert np.abs(embeddings(network, spec, seen) - expected).max() > 0.01  # the padding that the mask hides
    single = embeddings(network, spec, alone, torch.float32)
    assert embeddings(network, spec, padded, torch.float32) == pytest.approx(single, abs=1e-6)


def test_a_text_s_neighbours_in_the_batch_do_not_change_its_embedding(raw, spec, minilm):
    network, inputs = minilm.build(raw), batch([2, 9, 4], 9)
    together = embeddings(network, spec, inputs)
    for row in range(3):
        one = {name: array[row : row + 1] for name, array in inputs.items()}
        assert embeddings(network, spec, one)[0] == pytest.approx(together[row], abs=1e-12)


def test_what_hides_padding_is_within_float16(minilm):
    assert np.isfinite(np.float16(minilm.MASKED))
    assert np.exp(np.float64(minilm.MASKED)) == 0


def test_the_checkpoint_loads_strictly(raw, minilm):
    state = load_file(raw / minilm.CHECKPOINT)
    loaded = minilm.build(raw).bert.embeddings.word_embeddings.weight
    assert torch.equal(loaded, state["embeddings.word_embeddings.weight"])
    missing = "encoder.layer.0.output.dense.bias"
    save_file({name: tensor for name, tensor in state.items() if name != missing}, raw / minilm.CHECKPOINT)
    with pytest.raises(CheckpointError, match=rf"missing: {missing}\Z"):
        minilm.build(raw)


def test_the_exported_and_the_slimmed_graph_take_every_size(raw, spec, tmp_path, minilm):
    output = spec.outputs[0].model_copy(update={"shape": ["batch", WIDTH]})
    small = spec.model_copy(update={"outputs": [output]})
    network = minilm.build(raw)
    export_network(network, small, Export(exporter="dynamo", opset=18), tmp_path / "export")
    cases = {size: batch(lengths, size) for lengths, size in (([2], 2), ([256], 256), ([3, 65, 1], 65), ([9] * 8, 31))}
    with writing_arrays(tmp_path / "cases.npz") as writer:
        for size, inputs in cases.items():
            writer.add_all(f"sequence={size}/inputs", inputs)
    slim = Slim(skip_fusion_patterns=[], atol=1e-5, rtol=1e-4)
    slim_model(tmp_path / "export/model.onnx", tmp_path / "cases.npz", slim, tmp_path / "slim")
    # The mask of two axes that transformers would make, and attention by "sdpa", have these.
    operators = {node.op_type for node in onnx.load(tmp_path / "slim/model.onnx").graph.node}
    assert not operators & {"GatherND", "Where", "IsNaN"}
    for folder in ("export", "slim"):
        session = open_session(tmp_path / folder / "model.onnx")
        for inputs in cases.values():
            found = run_session(session, inputs)
            assert list(found) == ["embedding"]
            assert found["embedding"] == pytest.approx(embeddings(network, small, inputs), abs=1e-6)


def test_the_spec_declares_every_file_that_is_read(spec, minilm):
    assert {source.name for source in spec.sources} == {minilm.CONFIG, minilm.CHECKPOINT, data.TOKENIZER, data.TALES}
    assert tuple(tensor.name for tensor in spec.inputs) == NAMES
    assert spec.dimensions["sequence"].max == data.MAX_TOKENS


def test_texts_are_prepared_without_torch():
    assert third_party({"models/minilm/data.py"}) & {"torch", "transformers"} == set()


@pytest.fixture
def texts(tmp_path):
    """A folder with a tokenizer that knows eleven words and pads to 128, and with four tales."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "and", ".", "‘", "’"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(tmp_path / data.TOKENIZER))
    lines = ["ATU Topic\tTitle\tAbstract\tContent", "discrete\tstring\tstring\tstring", "class\t\t\tinclude=True"]
    for tale in "ABCD":
        sentences = [f"{tale} is {number}." for number in range(1, 21)]
        if tale == "D":
            sentences[0] = '"D said, ""Go!"" and went.'
            sentences[-1] += '"'
        lines.append(f"Tales\tTale {tale}\t\t{'  '.join(sentences)}")
    (tmp_path / data.TALES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_a_text_is_neither_padded_nor_cut_before_256_tokens(texts):
    tokenizer = data.load_tokenizer(texts / data.TOKENIZER)
    inputs = data.encode(tokenizer, "one and two")
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "input_ids": [2, 4, 7, 5, 3],
        "attention_mask": [1] * 5,
        "token_type_ids": [0] * 5,
    }
    assert all(array.dtype == np.int64 for array in inputs.values())
    assert data.encode(tokenizer, "one " * 200)["input_ids"].shape == (202,)
    longest = data.encode(tokenizer, "one " * 254 + "two " * 100)["input_ids"]
    assert longest.tolist() == [2, *[4] * 254, 3]
    assert data.encode(tokenizer, "")["input_ids"].tolist() == [2, 3]


def test_a_client_s_bytes_go_in_as_the_samples_do(texts, monkeypatch):
    monkeypatch.setattr(data, "RAW", texts)
    sent = [data.preprocess(data.decode(content)) for content in data.encoded(texts)]
    taken = [sample.inputs for sample in data.samples(texts, "evaluation")]
    assert len(sent) == len(taken) > 0
    for first, second in zip(sent, taken, strict=True):
        assert all((first[name] == second[name]).all() for name in NAMES)
    assert data.decode("‘one’".encode()) == "‘one’"
    with pytest.raises(ValueError, match="utf-8"):
        data.decode(b"\xff")


def test_no_tale_is_in_both_splits_and_each_comes_in_turn(texts, spec):
    groups = {}
    for split in ("calibration", "evaluation"):
        samples = list(data.samples(texts, split))
        for sample in samples:
            check_sample(sample, split, spec)
            assert sample.label is None
        groups[split] = [sample.group for sample in samples]
    assert groups["evaluation"][:5] == ["Tale A", "Tale C", "Tale A", "Tale C", "Tale A"]
    assert set(groups["calibration"]) == {"Tale B", "Tale D"}


def test_passages_are_runs_of_one_two_and_four_sentences(texts):
    passages = [text for title, text in data.split_passages(texts, "evaluation") if title == "Tale A"]
    assert [text.count(".") for text in passages] == [1, 2, 4, 1, 2, 4, 1, 2, 3]
    assert passages[1] == "A is 2. A is 3."
    assert " ".join(passages) == " ".join(f"A is {number}." for number in range(1, 21))
    assert list(data.split_passages(texts, "evaluation")) == list(data.split_passages(texts, "evaluation"))


def test_the_table_s_quotes_are_undone(texts):
    tales = dict(data.read_tales(texts / data.TALES))
    assert list(tales) == ["Tale A", "Tale B", "Tale C", "Tale D"]
    assert tales["Tale D"].startswith('D said, "Go!" and went.  D is 2.')
    assert tales["Tale D"].endswith("D is 20.")


def test_a_passage_that_two_tales_have_is_given_once(texts):
    path = texts / data.TALES
    path.write_text(path.read_text().replace("C is", "A is"))
    passages = [text for _, text in data.split_passages(texts, "evaluation")]
    assert len(passages) == len(set(passages)) == 9


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He went. She stayed!  Why? ", ["He went.", "She stayed!", "Why?"]),
        ("‘Go!’ said he. ‘I will.’ And he went.", ["‘Go!’ said he.", "‘I will.’", "And he went."]),
        ("Mr. Fox met Mrs. Fox. Both ran.", ["Mr. Fox met Mrs. Fox.", "Both ran."]),
        ("One ... two, it was 3.5 or so.", ["One ... two, it was 3.5 or so."]),
    ],
)
def test_sentences_end_at_a_stop_before_an_upper_case_letter(text, sentences):
    assert data.SENTENCE_END.split(text.strip()) == sentences


def test_an_embedding_is_handed_on_as_it_is():
    vector = np.array([0.6, 0.8], np.float32)
    assert data.postprocess({"embedding": vector}).vector.tolist() == vector.tolist()


def tokens(size=5, dtype=np.int64, **others):
    return Sample({**{name: np.ones(size, dtype) for name in NAMES}, **others})


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (tokens(dtype=np.int32), "sample 1, group None: input_ids is int32 where int64 is declared"),
        (tokens(dtype=np.float32), "sample 1, group None: input_ids is float32 where int64 is declared"),
        (tokens(257), "sample 1, group None: sequence is 257, where 2 to 256 is declared"),
        (tokens(1), "sample 1, group None: sequence is 1, where 2 to 256 is declared"),
        (
            tokens(attention_mask=np.ones(4, np.int64)),
            r"attention_mask has the shape \[1, 4\] where \['batch', 'sequence'\] is declared \(sequence is 5\)",
        ),
    ],
)
def test_tokens_that_contradict_the_spec_end_in_a_message(spec, tmp_path, sample, message):
    with pytest.raises(DataError, match=message):
        write_samples(tmp_path / "evaluation.npz", [tokens(), sample], 10, spec)
    assert not (tmp_path / "evaluation.npz").exists()


def test_texts_of_different_lengths_are_kept_as_they_are(texts, spec, tmp_path):
    write_samples(tmp_path / "evaluation.npz", data.samples(texts, "evaluation"), 4, spec)
    file = SampleFile(tmp_path / "evaluation.npz")
    found = [file.inputs(index)["input_ids"].tolist() for index in range(len(file))]
    expected = itertools.islice(data.samples(texts, "evaluation"), 4)
    assert found == [sample.inputs["input_ids"].tolist() for sample in expected]
    assert len({len(ids) for ids in found}) > 1
