"""List the networks that are written here, with their inputs. torch is imported when one is built."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.zoo_networks.declaration import BATCH, Input, Network, Size, floats, integers, lengths, mask, uniform

SEQUENCE = Size(2, 16, 8)
FRAMES = Size(24, 96, 48, 8)
HEIGHT, WIDTH = Size(32, 96, 64, 32), Size(32, 96, 32, 32)
TABLE = {"numbers": floats("batch", 6), "categories": integers(10, "batch", 4)}
TOKENS = {"tokens": integers(50, "batch", "sequence", low=1)}
PICTURE = {"picture": floats("batch", 3, 32, 32)}
FREE_PICTURE = {"picture": floats("batch", 3, "height", "width")}
MEL = {"mel": floats("batch", 40, "frames")}


def own(place: str, name: str, inputs: dict[str, Input], *arguments: Any, **options: Any) -> Network:
    """Declare the network that the class or function at `place`, module:name, makes; `sizes` follow from the inputs."""
    module, made = place.split(":")
    known = {"batch": BATCH, "sequence": SEQUENCE, "target": SEQUENCE, "frames": FRAMES, "height": HEIGHT}
    known |= {"width": WIDTH, "nodes": Size(3, 12, 8), "wave": Size(256, 1024, 512, 64)}
    used = {axis for given in inputs.values() for axis in given.shape if isinstance(axis, str)}
    sizes = {axis: size for axis, size in known.items() if axis in used}
    return Network(name, module, builder(module, made, arguments, options), inputs, sizes)


def builder(module: str, made: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Callable[[], Any]:
    def build() -> Any:
        return getattr(import_module(f"benchmarks.zoo_networks.{module}"), made)(*arguments, **options)

    return build


def recurrent(name: str, kind: str, **options: Any) -> Network:
    """Declare a `Recurrent` with the layer `kind` of torch.nn."""

    def build() -> Any:
        from torch import nn

        from benchmarks.zoo_networks.recurrent import Recurrent

        return Recurrent(getattr(nn, kind), **options)

    return Network(name, "recurrent", build, TOKENS, {"batch": BATCH, "sequence": SEQUENCE})


def cell_loop(name: str, kind: str) -> Network:
    """Declare a `CellLoop` with the cell `kind` of torch.nn."""

    def build() -> Any:
        from torch import nn

        from benchmarks.zoo_networks.recurrent import CellLoop

        return CellLoop(getattr(nn, kind))

    return Network(name, "recurrent", build, {"steps": floats("batch", 6, 12)})


STEPS = floats("batch", "sequence", 12)
STATE = floats(2, "batch", 24)
PAIR = {"source": integers(50, "batch", "sequence"), "target": integers(50, "batch", "target")}
NETWORKS = [
    recurrent("lstm_classifier", "LSTM"),
    recurrent("bilstm_tagger", "LSTM", tagger=True, bidirectional=True),
    recurrent("lstm_deep_projected", "LSTM", num_layers=3, tagger=True),
    recurrent("gru_classifier", "GRU"),
    recurrent("bigru_deep", "GRU", num_layers=2, bidirectional=True),
    recurrent("elman_tagger", "RNN", tagger=True),
    cell_loop("lstm_cell_loop", "LSTMCell"),
    cell_loop("gru_cell_loop", "GRUCell"),
    own("recurrent:Packed", "lstm_packed", {"steps": STEPS, "length": lengths("sequence", "batch", 1)}),
    own("recurrent:Streaming", "lstm_streaming", {"steps": STEPS, "hidden": STATE, "cell": STATE}),
    own("recurrent:ConvLstm", "conv_lstm", {"pictures": floats("batch", 4, 3, 16, 16)}),
    own("recurrent:Translator", "gru_translator", {**PAIR, "present": mask("batch", "sequence")}),
    own("recurrent:TemporalConvolutions", "tcn", {"steps": floats("batch", 6, "sequence")}),
    own("recurrent:TextConvolutions", "text_cnn", TOKENS),
    own("recurrent:SiameseText", "siamese_text", {"left": TOKENS["tokens"], "right": TOKENS["tokens"]}),
    own("recurrent:Crf", "crf_tagger", {"tokens": integers(50, "batch", 10)}),
    own(
        "recurrent:TransformerText",
        "transformer_encoder",
        {**TOKENS, "present": mask("batch", "sequence", dtype="bool")},
        norm_first=False,
        activation="relu",
    ),
    own(
        "recurrent:TransformerText",
        "transformer_encoder_pre_norm",
        {**TOKENS, "present": mask("batch", "sequence", dtype="bool")},
        norm_first=True,
        activation="gelu",
    ),
    own("recurrent:TransformerTranslator", "transformer_translator", PAIR),
    own("recurrent:Gpt", "gpt_rotary", TOKENS),
    own("speech:DeepSpeech", "deepspeech", MEL),
    own("speech:Conformer", "conformer", {**MEL, "length": lengths("frames", "batch", 1)}),
    own("speech:quartznet", "quartznet", MEL),
    own("speech:Speaker", "ecapa_speaker", MEL),
    own("speech:ConvTasNet", "conv_tasnet", {"wave": floats("batch", "wave")}),
    own("speech:Spectrogram", "stft_classifier", {"wave": floats("batch", "wave")}),
    own("speech:HifiGan", "hifigan", MEL),
    own("speech:FastSpeech", "fastspeech", {"phonemes": integers(40, "batch", "sequence")}),
    own("speech:WaveNet", "wavenet", {"wave": floats("batch", "wave")}),
    own("speech:RnnTransducer", "rnn_transducer", {**MEL, "letters": integers(29, "batch", "sequence")}),
    own("speech:Keywords", "keywords", MEL),
    own("speech:Denoiser", "gru_denoiser", {"magnitudes": uniform("batch", 40, "frames")}),
    own("tabular:residual_mlp", "table_resnet", TABLE),
    own("tabular:FtTransformer", "ft_transformer", TABLE),
    own("tabular:TabM", "tabm", {"numbers": floats("batch", 46)}),
    own("tabular:DeepCross", "deep_cross", TABLE),
    own("tabular:DeepFm", "deep_fm", TABLE),
    own("tabular:Dlrm", "dlrm", {"numbers": floats("batch", 6), "categories": integers(20, "batch", 4)}),
    own("tabular:TabNet", "tabnet", {"numbers": floats("batch", 46)}),
    own("tabular:Trees", "soft_trees", {"numbers": floats("batch", 46)}),
    own(
        "tabular:TwoTowers",
        "interest_network",
        {
            "history": integers(50, "batch", "sequence"),
            "item": integers(50, "batch", 1),
            "present": mask("batch", "sequence", dtype="bool"),
        },
    ),
    own("tabular:Series", "nbeats", {"past": floats("batch", 24)}),
    own("tabular:Decomposed", "dlinear", {"past": floats("batch", 24, 3)}),
    own("tabular:PointNet", "pointnet", {"points": floats("batch", "nodes", 3)}),
    own(
        "tabular:GraphConvolution",
        "graph_convolution",
        {"features": floats("batch", "nodes", 12), "edges": uniform("batch", "nodes", "nodes")},
    ),
    own(
        "tabular:GraphAttention",
        "graph_attention",
        {"features": floats("batch", "nodes", 12), "edges": uniform("batch", "nodes", "nodes")},
    ),
    own(
        "tabular:ScatteredMessages",
        "scattered_messages",
        {
            "features": floats("batch", 10, 12),
            "sources": integers(10, "batch", "sequence"),
            "targets": integers(10, "batch", "sequence"),
        },
    ),
    own("generative:Autoencoder", "vae", PICTURE),
    own("generative:VectorQuantized", "vq_vae", PICTURE),
    own("generative:dcgan", "dcgan", {"noise": floats("batch", 16)}),
    own("generative:StyleGan", "stylegan", {"noise": floats("batch", 16)}),
    own("generative:DiffusionUNet", "diffusion_unet", {**PICTURE, "step": integers(1000, "batch", 1)}),
    own("generative:RealNvp", "real_nvp", {"x": floats("batch", 16)}),
    own("generative:PixelCnn", "pixel_cnn", {"picture": uniform("batch", 1, 16, 16)}),
    own("generative:Radiance", "nerf", {"points": floats("batch", 3), "directions": floats("batch", 3)}),
    own("generative:Translation", "style_translation", FREE_PICTURE),
    own("generative:super_resolution", "super_resolution", FREE_PICTURE),
    own("detection:Pyramid", "fcos", FREE_PICTURE),
    own("detection:Anchors", "ssd_top10", {"picture": floats("batch", 3, 64, 64)}),
    own("detection:CenterNet", "centernet", FREE_PICTURE),
    own("detection:Queries", "detr_small", FREE_PICTURE),
    own("detection:Keypoints", "keypoints", FREE_PICTURE),
    own("detection:Crnn", "crnn", {"line": floats("batch", 1, 32, "width")}),
    own("detection:Binarized", "dbnet", FREE_PICTURE),
    own("detection:Rectified", "stn_reader", {"word": floats("batch", 1, 32, 96)}),
]
