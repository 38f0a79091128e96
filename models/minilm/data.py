"""Passages of 54 tales of the brothers Grimm in English: half of the tales for evaluation, half for calibration."""

import csv
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from onnx_release.types import Embedding, Sample

TALES = "grimm-tales.tab"
TOKENIZER = "tokenizer.json"
# preprocess() gets no folder, so it reads the tokenizer that the pipeline has fetched, below the repository root.
RAW = Path("data/raw/minilm")

# The published model cuts texts after this many tokens (max_seq_length), which include [CLS] and [SEP].
MAX_TOKENS = 256
# The tokenizer goes through the whole text before it truncates; 256 tokens are about a thousand characters.
MAX_CHARACTERS = 100_000
# The numbers of sentences in a passage, in turn: from a question to a paragraph.
LENGTHS = (1, 2, 4)
# White space after a full stop and a closing quote, before an opening quote and an upper-case letter.
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][’”'\"]))(?<!Mr\.)(?<!Mrs\.)\s+(?=[‘“'\"]*[A-Z])")


def samples(raw: Path, split: str) -> Iterator[Sample]:
    """Yield the first passage of each tale, then the second, and so on, so that the first samples are of all tales."""
    tokenizer = load_tokenizer(raw / TOKENIZER)
    for title, passage in split_passages(raw, split):
        yield Sample(encode(tokenizer, passage), group=title)


def encoded(raw: Path) -> Iterator[bytes]:
    """Yield passages as a client would send them."""
    for _, passage in itertools.islice(split_passages(raw, "evaluation"), 100):
        yield passage.encode()


def decode(content: bytes) -> str:
    """Decode the UTF-8 bytes from a client. Raises ValueError for other bytes and for a whole book."""
    text = content.decode()
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, and the model reads {MAX_TOKENS} tokens: send a part of it")
    return text


def preprocess(item: str) -> dict[str, np.ndarray]:
    """Tokenize a text; like the published model, truncate it at 256 tokens and do not pad it."""
    return encode(load_tokenizer(RAW / TOKENIZER), item)


def postprocess(outputs: dict[str, np.ndarray]) -> Embedding:
    """Return the embedding, of length 1: the product of two of them is their cosine."""
    return Embedding(outputs["embedding"])


@cache
def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer. Its file would pad every text to 128 tokens and truncate it there."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> dict[str, np.ndarray]:
    """Return the three inputs, each int64 [sequence]."""
    [encoding] = tokenizer.encode_batch([text])  # which lets other threads of Python run, unlike encode()
    return {
        "input_ids": np.array(encoding.ids, np.int64),
        "attention_mask": np.array(encoding.attention_mask, np.int64),
        "token_type_ids": np.array(encoding.type_ids, np.int64),
    }


def split_passages(raw: Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield title and passage, one of every tale of the split in turn, none twice. The file is sorted by title."""
    tales = read_tales(raw / TALES)
    chosen = tales[::2] if split == "evaluation" else tales[1::2]
    rounds = itertools.zip_longest(*(passages(text) for _, text in chosen))
    seen = set()
    for texts in rounds:
        for (title, _), text in zip(chosen, texts, strict=True):
            if text is not None and text not in seen:
                seen.add(text)
                yield title, text


def read_tales(path: Path) -> list[tuple[str, str]]:
    """Return title and text of each tale in a table of Orange, whose second and third line have types, not tales."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(row["Title"], row["Content"]) for row in rows[2:]]


def passages(text: str) -> Iterator[str]:
    """Yield all sentences of a tale in order, in runs of 1, 2 and 4."""
    sentences = iter(SENTENCE_END.split(text.strip()))
    for length in itertools.cycle(LENGTHS):
        run = " ".join(itertools.islice(sentences, length))
        if not run:
            return
        yield " ".join(run.split())
