"""List networks of transformers that see or hear, of small configurations."""

# ruff: noqa: E501  a network a line, as in a table

from benchmarks.zoo_networks.declaration import Network, Size, boxes, floats, integers
from benchmarks.zoo_networks.texts import BART, HIDDEN, LOGITS, PICTURE, SMALL, TEXT, VISION, network

STAGED = {"depths": [1, 1], "hidden_sizes": [16, 32]}
SIDES = {"height": Size(64, 128, 64, 32), "width": Size(64, 128, 96, 32)}
FREE_PICTURE = {"pixel_values": floats("batch", 3, "height", "width")}
BACKBONE = {"class": "ResNetConfig", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}  # fmt: skip
PICTURES = [
    network("ViTModel", VISION, PICTURE, HIDDEN),
    network("ViTForImageClassification", VISION, PICTURE, LOGITS),
    network("DeiTModel", VISION, PICTURE, HIDDEN),
    network("BeitModel", {**VISION, "use_relative_position_bias": True}, PICTURE, HIDDEN),
    network("Dinov2Model", VISION, PICTURE, HIDDEN),
    network("SiglipVisionModel", VISION, PICTURE, HIDDEN),
    network("CLIPVisionModel", VISION, PICTURE, (*HIDDEN, "pooler_output")),
    network("SwinModel", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, PICTURE, HIDDEN),
    network("Swinv2Model", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, PICTURE, HIDDEN),
    network("ConvNextModel", {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2}, PICTURE, HIDDEN),
    network("ResNetForImageClassification", {"embedding_size": 16, **STAGED, "layer_type": "basic"}, PICTURE, LOGITS),
    network("RegNetModel", {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1], "groups_width": 8}, PICTURE, HIDDEN),
    network("MobileViTForImageClassification", {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48]}, {"pixel_values": floats("batch", 3, 64, 64)}, LOGITS),
    network("PoolFormerModel", {"hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]}, PICTURE, HIDDEN),
    network("SegformerForSemanticSegmentation", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}, FREE_PICTURE, LOGITS, **SIDES),
    network("DPTForSemanticSegmentation", {**VISION, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16, "use_auxiliary_head": False, "is_hybrid": False}, PICTURE, LOGITS),
    network("UperNetForSemanticSegmentation", {"backbone_config": {**BACKBONE, "out_features": ["stage1", "stage2"]}, "hidden_size": 16, "use_auxiliary_head": False, "pool_scales": [1, 2]}, {"pixel_values": floats("batch", 3, 64, 64)}, LOGITS),
    network("YolosForObjectDetection", {**VISION, "image_size": [32, 32], "num_detection_tokens": 5}, PICTURE, ("logits", "pred_boxes")),
    network("DetrForObjectDetection", {"backbone_config": {**BACKBONE, "out_features": ["stage2"]}, "use_timm_backbone": False, "backbone": None, "num_queries": 6, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}, {"pixel_values": floats("batch", 3, 64, 64)}, ("logits", "pred_boxes")),
    network("Swin2SRForImageSuperResolution", {"image_size": 16, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4}, {"pixel_values": floats("batch", 3, 16, 16)}, ("reconstruction",)),
    network("TimesformerModel", {**VISION, "num_frames": 2}, {"pixel_values": floats("batch", 2, 3, 32, 32)}, HIDDEN),
    network("VideoMAEModel", {**VISION, "num_frames": 4}, {"pixel_values": floats("batch", 4, 3, 32, 32)}, HIDDEN),
]  # fmt: skip

CONVOLUTIONS = {"conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
SPEECH = {
    **SMALL,
    **CONVOLUTIONS,
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WAVE = {"input_values": floats("batch", "wave")}
WAVES = {"wave": Size(800, 1600, 1200, 400)}
HEARD = [
    network("Wav2Vec2Model", SPEECH, WAVE, HIDDEN, **WAVES),
    network("Wav2Vec2ForCTC", SPEECH, WAVE, LOGITS, **WAVES),
    network("HubertModel", SPEECH, WAVE, HIDDEN, **WAVES),
    network("WavLMModel", SPEECH, WAVE, HIDDEN, **WAVES),
    network("SEWModel", {**SPEECH, "squeeze_factor": 2}, WAVE, HIDDEN, **WAVES),
    network("ASTModel", {**VISION, "patch_size": 8, "num_mel_bins": 16, "max_length": 32}, {"input_values": floats("batch", 32, 16)}, HIDDEN),
    network("WhisperModel", {**BART, "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32, "pad_token_id": 0, "decoder_start_token_id": 1}, {"input_features": floats("batch", 16, 32), "attention_mask": integers(2, "batch", 32, low=1), "decoder_input_ids": integers(64, "batch", "target")}, HIDDEN),
    network("Speech2TextModel", {**BART, "input_feat_per_channel": 16, "num_conv_layers": 2, "conv_channels": 32, "max_source_positions": 64, "max_target_positions": 64}, {"input_features": floats("batch", "frames", 16), "attention_mask": integers(2, "batch", "frames", low=1), "decoder_input_ids": integers(64, "batch", "target", low=3)}, HIDDEN, frames=Size(16, 64, 32, 4)),
    network("EncodecModel", {"num_filters": 4, "hidden_size": 16, "codebook_size": 16, "codebook_dim": 16, "upsampling_ratios": [4, 2], "num_lstm_layers": 1, "target_bandwidths": [24.0]}, {"input_values": floats("batch", 1, 800)}, ("audio_values",)),
]  # fmt: skip

FUSED_TEXT = {"class": "CLIPTextConfig", **SMALL, "eos_token_id": 63, "bos_token_id": 1, "pad_token_id": 0}
FUSED = [
    network("CLIPModel", {"text_config": {k: v for k, v in FUSED_TEXT.items() if k != "class"}, "vision_config": VISION, "projection_dim": 16}, {"input_ids": TEXT["input_ids"], **PICTURE, "attention_mask": TEXT["attention_mask"]}, ("logits_per_image", "text_embeds", "image_embeds")),
    network("LayoutLMv3Model", {**SMALL, "coordinate_size": 4, "shape_size": 8, "input_size": 32, "patch_size": 8, "max_2d_position_embeddings": 1024, "visual_embed": False}, {"input_ids": TEXT["input_ids"], "bbox": boxes("batch", "sequence"), "attention_mask": TEXT["attention_mask"]}, HIDDEN),
    network("TimeSeriesTransformerModel", {"prediction_length": 4, "context_length": 8, "d_model": 16, "lags_sequence": [1], "num_time_features": 1, "encoder_layers": 1, "decoder_layers": 1}, {"past_values": floats("batch", 9), "past_time_features": floats("batch", 9, 1), "past_observed_mask": integers(2, "batch", 9, low=1)}, HIDDEN),
    network("PatchTSTForPrediction", {"num_input_channels": 2, "context_length": 16, "prediction_length": 4, "patch_length": 4, "patch_stride": 4, "d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "loss": "mse"}, {"past_values": floats("batch", 16, 2)}, ("prediction_outputs",)),
]  # fmt: skip

NETWORKS: list[Network] = [*PICTURES, *HEARD, *FUSED]
