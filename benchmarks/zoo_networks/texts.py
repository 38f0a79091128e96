"""List networks of transformers, of small configurations."""

# ruff: noqa: E501  a network a line, as in a table

from collections.abc import Mapping
from typing import Any

from benchmarks.zoo_networks.declaration import BATCH, Input, Network, Size, boxes, floats, integers, mask

SEQUENCE = Size(2, 16, 8)
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "use_cache": False,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {"input_ids": integers(64, "batch", "sequence", low=3), "attention_mask": mask("batch", "sequence")}
IDS = {"input_ids": TEXT["input_ids"]}
PICTURE = {"pixel_values": floats("batch", 3, 32, 32)}
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
FREE = {"sequence": SEQUENCE}
HIDDEN = ("last_hidden_state",)
LOGITS = ("logits",)


def network(
    kind: str, config: Mapping[str, Any], inputs: Mapping[str, Input], outputs: tuple[str, ...], **sizes: Size
) -> Network:
    """Declare the class `kind` of transformers; the size sequence is known, others are given."""

    def build() -> Any:
        import transformers

        made = getattr(transformers, kind)
        options = dict(config)
        for name, value in options.items():  # the config of a part is a dict with the name of its class
            if isinstance(value, dict) and "class" in value:
                options[name] = getattr(transformers, value["class"])(
                    **{k: v for k, v in value.items() if k != "class"}
                )
        return made(made.config_class(**options))

    used = {axis for given in inputs.values() for axis in given.shape if isinstance(axis, str)}
    known = {"batch": BATCH, **FREE, "target": SEQUENCE, **sizes}
    return Network(name_of(kind), "transformers", build, inputs, {k: v for k, v in known.items() if k in used}, outputs)


def name_of(kind: str) -> str:
    """Return the name of a class in small letters, without what many of them end in."""
    return "hf_" + kind.removesuffix("Model").removesuffix("ForCausalLM").removesuffix("LMHead").lower()


ENCODERS = [
    network("BertModel", SMALL, TEXT, (*HIDDEN, "pooler_output")),
    network("RobertaModel", {**SMALL, "pad_token_id": 1}, TEXT, HIDDEN),
    network("XLMRobertaModel", {**SMALL, "pad_token_id": 1}, TEXT, HIDDEN),
    network("BertForSequenceClassification", SMALL, TEXT, LOGITS),
    network("BertForTokenClassification", SMALL, TEXT, LOGITS),
    network("BertForQuestionAnswering", SMALL, TEXT, ("start_logits", "end_logits")),
    network("BertForMaskedLM", SMALL, TEXT, LOGITS),
    network("DistilBertModel", {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, TEXT, HIDDEN),
    network("AlbertModel", {**SMALL, "embedding_size": 16}, TEXT, HIDDEN),
    network("ElectraModel", {**SMALL, "embedding_size": 16}, TEXT, HIDDEN),
    network("MPNetModel", SMALL, TEXT, HIDDEN),
    network("DebertaV2Model", {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, TEXT, HIDDEN),
    network("ModernBertModel", {**SMALL, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}, TEXT, HIDDEN),
    network("NomicBertModel", SMALL, TEXT, HIDDEN),
    network("FNetModel", SMALL, IDS, HIDDEN),
    network("RoFormerModel", {**SMALL, "embedding_size": 32}, TEXT, HIDDEN),
    network("ConvBertModel", {**SMALL, "embedding_size": 32}, TEXT, HIDDEN),
    network("SqueezeBertModel", {**SMALL, "embedding_size": 32}, TEXT, HIDDEN),
    network("MobileBertModel", {**SMALL, "embedding_size": 32, "intra_bottleneck_size": 32}, TEXT, HIDDEN),
    network("FunnelBaseModel", {"vocab_size": 64, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]}, TEXT, HIDDEN, sequence=Size(4, 16, 8)),
    network("LayoutLMModel", SMALL, {"input_ids": TEXT["input_ids"], "bbox": boxes("batch", "sequence")}, HIDDEN),
    network("T5EncoderModel", {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}, TEXT, HIDDEN),
]  # fmt: skip

GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}
DECODERS = [
    network("GPT2LMHeadModel", GPT2, IDS, LOGITS),
    network("OpenAIGPTLMHeadModel", {k: v for k, v in GPT2.items() if k != "use_cache"}, IDS, LOGITS),
    network("GPTNeoForCausalLM", {**SMALL, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}, IDS, LOGITS),
    network("GPTNeoXForCausalLM", SMALL, TEXT, LOGITS),
    network("OPTForCausalLM", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}, TEXT, LOGITS),
    network("BloomForCausalLM", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False}, IDS, LOGITS),
    network("LlamaForCausalLM", GROUPED, TEXT, LOGITS),
    network("MistralForCausalLM", {**GROUPED, "sliding_window": 8}, TEXT, LOGITS),
    network("Qwen2ForCausalLM", GROUPED, TEXT, LOGITS),
    network("Qwen3ForCausalLM", GROUPED, TEXT, LOGITS),
    network("Gemma2ForCausalLM", {**GROUPED, "sliding_window": 8, "query_pre_attn_scalar": 8}, TEXT, LOGITS),
    network("Gemma3ForCausalLM", {**GROUPED, "sliding_window": 8, "query_pre_attn_scalar": 8}, TEXT, LOGITS),
    network("PhiForCausalLM", GROUPED, TEXT, LOGITS),
    network("Phi3ForCausalLM", GROUPED, TEXT, LOGITS),
    network("FalconForCausalLM", {**SMALL, "ffn_hidden_size": 64}, IDS, LOGITS),
    network("StableLmForCausalLM", GROUPED, TEXT, LOGITS),
    network("Olmo2ForCausalLM", GROUPED, TEXT, LOGITS),
    network("SmolLM3ForCausalLM", GROUPED, TEXT, LOGITS),
    network("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}, TEXT, LOGITS),
    network("MambaForCausalLM", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "use_cache": False}, IDS, LOGITS),
    network("RwkvForCausalLM", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "use_cache": False}, IDS, LOGITS),
]  # fmt: skip

BART = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "use_cache": False,
}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "use_cache": False}
TRANSLATED = {**TEXT, "decoder_input_ids": integers(64, "batch", "target", low=3)}
TRANSLATORS = [
    network("BartModel", BART, TRANSLATED, HIDDEN),
    network("MBartModel", BART, TRANSLATED, HIDDEN),
    network("MarianModel", {**BART, "pad_token_id": 0, "decoder_start_token_id": 0}, TRANSLATED, HIDDEN),
    network("PegasusModel", BART, TRANSLATED, HIDDEN),
    network("M2M100Model", BART, TRANSLATED, HIDDEN),
    network("T5ForConditionalGeneration", T5, TRANSLATED, LOGITS),
    network("MT5ForConditionalGeneration", T5, TRANSLATED, LOGITS),
]

NETWORKS = [*ENCODERS, *DECODERS, *TRANSLATORS]
