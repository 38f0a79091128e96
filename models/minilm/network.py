"""all-MiniLM-L6-v2, which embeds an English sentence or short paragraph in 384 numbers by its meaning.

The encoder is that of the package transformers. The mean over the tokens and the scaling to length 1 follow, as in the
published model's modules.json.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertModel

from onnx_release.checkpoint import load_checkpoint

CONFIG = "config.json"
CHECKPOINT = "model.safetensors"
# Added to the attention scores of padding. Softmax makes it exactly 0 in float64 too, and it is within float16.
MASKED = -1e4


class SentenceEmbedder(nn.Module):
    """Maps token ids, attention mask and token types, each int64 [batch, sequence], to embeddings [batch, 384].

    The attention mask is 1 for tokens and 0 for padding, which does not change the embedding.
    """

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        kept = attention_mask.to(self.bert.dtype)
        # transformers uses a mask of four axes as it is; for one of two axes it would make more nodes.
        masked = (1 - kept)[:, None, None, :] * MASKED
        states = self.bert(input_ids, attention_mask=masked, token_type_ids=token_type_ids).last_hidden_state
        kept = kept[:, :, None]
        mean = (states * kept).sum(1) / kept.sum(1)
        return nn.functional.normalize(mean, dim=1)


def build(raw: Path) -> SentenceEmbedder:
    """Return the network with the checkpoint in `raw` loaded, in eval mode."""
    config = BertConfig.from_json_file(raw / CONFIG)
    # "sdpa" makes a graph of more nodes.
    config._attn_implementation = "eager"
    bert = BertModel(config)
    # The checkpoint, from an older transformers, also has the numbers 0 to 511, which are not weights here.
    bert.embeddings.register_buffer("position_ids", bert.embeddings.position_ids, persistent=True)
    load_checkpoint(bert, raw / CHECKPOINT)
    bert.pooler = None  # in the checkpoint, and not in the embedding
    return SentenceEmbedder(bert).eval()
