"""List networks of timm, torchvision, segmentation-models-pytorch, monai, open-clip, ultralytics and diffusers."""

# ruff: noqa: E501  a network a line, as in a table

from collections.abc import Callable
from typing import Any

from benchmarks.zoo_networks.declaration import BATCH, Input, Network, Size, floats, integers
from onnx_release.network.outputs import OUT


def picture(side: int = 64) -> dict[str, Input]:
    return {"picture": floats("batch", 3, side, side)}


FREE = {"picture": floats("batch", 3, "height", "width")}


def timm(name: str, side: int = 64, sized: bool = False, **options: Any) -> Network:
    """Declare a network of timm with 10 classes; `sized` ones are built for one size of pictures, with `img_size`."""

    def build() -> Any:
        import timm

        return timm.create_model(name, num_classes=10, **({"img_size": side} if sized else {}), **options)

    return Network(f"timm_{name}", "timm", build, picture(side))


def torchvision(name: str, side: int = 64, kind: str = "", **options: Any) -> Network:
    """Declare a network of torchvision.models, or of its module `kind`."""

    def build() -> Any:
        import torchvision.models

        module = getattr(torchvision.models, kind) if kind else torchvision.models
        return getattr(module, name)(weights=None, num_classes=10, **options)

    return Network(
        f"tv_{name}", "torchvision", build, picture(side), outputs=("out",) if kind == "segmentation" else ()
    )


def segmentation(kind: str, encoder: str = "resnet18", smallest: int = 64) -> Network:
    """Declare a network of segmentation-models-pytorch, at any height and width in steps of 32."""

    def build() -> Any:
        import segmentation_models_pytorch

        made = getattr(segmentation_models_pytorch, kind)
        return made(encoder, encoder_weights=None, classes=3)

    sizes = {"batch": BATCH, "height": Size(smallest, 160, 128, 32), "width": Size(smallest, 160, 128, 32)}
    name = f"smp_{kind.lower()}_{encoder.replace('-', '_')}"
    return Network(name, "segmentation-models-pytorch", build, FREE, sizes)


def medical(kind: str, inputs: dict[str, Input], **options: Any) -> Network:
    """Declare a network of monai."""

    def build() -> Any:
        from monai.networks import nets

        return getattr(nets, kind)(**options)

    return Network(f"monai_{kind.lower()}", "monai", build, inputs)


def clip(name: str, side: int, **tower: Any) -> Network:
    """Declare a network of open-clip with two small towers."""

    def build() -> Any:
        from open_clip.model import CLIP

        text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 2}
        return CLIP(32, {"image_size": side, **tower}, text)

    inputs = {**picture(side), "tokens": integers(64, "batch", 16)}
    return Network(f"clip_{name}", "open-clip", build, inputs)


def yolo(name: str, scale: str = "n", kind: str = "DetectionModel", side: int = 64) -> Network:
    """Declare a network of ultralytics from its YAML file, at its smallest scale."""

    def build() -> Any:
        from ultralytics.nn import tasks

        return FirstOutput(getattr(tasks, kind)(f"{name.replace('@', scale)}.yaml", verbose=False))

    return Network(f"ultra_{name.replace('@', '').replace('-', '_')}", "ultralytics", build, picture(side))


def diffusion(name: str, make: Callable[[Any], Any], inputs: dict[str, Input]) -> Network:
    """Declare a network of diffusers; `make` takes its module of models."""

    def build() -> Any:
        from diffusers import models

        return make(models)

    return Network(f"diffusers_{name}", "diffusers", build, inputs, outputs=(f"sample{OUT}",))


def FirstOutput(network: Any) -> Any:  # noqa: N802
    """Return a network that gives only the first output of `network`: the others are for training."""
    from benchmarks.zoo_networks.building import FirstOutput as Wrapper

    return Wrapper(network)


TIMM = [
    *(timm(name) for name in (
        "resnet18", "resnet26d", "resnetv2_50", "resnext26ts", "seresnet18", "ecaresnet26t", "skresnet18", "res2net50_26w_4s",
        "regnetx_002", "regnety_002", "regnetz_005", "densenet121", "vgg11", "vgg11_bn", "mobilenetv3_small_050", "mobilenetv4_conv_small",
        "mnasnet_050", "efficientnet_lite0", "efficientnet_b0", "tf_efficientnetv2_b0", "fbnetc_100", "ghostnet_050", "ghostnetv2_100",
        "hardcorenas_a", "lcnet_035", "tinynet_e", "spnasnet_100", "mixnet_s", "rexnet_100", "repvgg_a0", "repghostnet_050", "convnext_atto", "convnextv2_atto", "hgnet_tiny", "hgnetv2_b0", "hrnet_w18_small", "dla34", "dpn48b", "cspresnet50", "darknet17", "selecsls42",
        "vovnet39a", "ese_vovnet19b_dw", "inception_next_atto", "edgenext_xx_small", "starnet_s1", "fasternet_t0", "nf_regnet_b0", "gernet_s",
        "poolformerv2_s12", "caformer_s18", "repvit_m0_9", "tresnet_m", "legacy_xception",
    )),
    *(timm(name, 224) for name in ("levit_128s", "efficientformer_l1", "mobilevit_xxs", "fastvit_t8", "efficientvit_b0", "efficientvit_m0", "tiny_vit_5m_224", "mvitv2_tiny", "pvt_v2_b0", "edgenext_small_rw")),
    *(timm(name, 64, sized=True, embed_dim=48, depth=2, num_heads=3) for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224")),
    *(timm(name, 64, sized=True) for name in ("mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224")),
    timm("cait_xxs24_224", 64, sized=True, embed_dim=48, depth=2, num_heads=4),
    timm("xcit_nano_12_p16_224", 64, sized=True, embed_dim=48, depth=2, num_heads=4),
    timm("swin_tiny_patch4_window7_224", 64, sized=True, embed_dim=24, depths=(2, 2), num_heads=(2, 4), window_size=4),
    timm("swinv2_tiny_window8_256", 64, sized=True, embed_dim=24, depths=(2, 2), num_heads=(2, 4), window_size=4),
    timm("coat_lite_tiny", 64, sized=True),
]  # fmt: skip

TORCHVISION = [
    *(torchvision(name) for name in ("alexnet", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2", "resnet18", "wide_resnet50_2", "efficientnet_v2_s", "convnext_tiny", "regnet_y_400mf", "mnasnet0_5", "densenet121")),
    torchvision("googlenet", 96, aux_logits=False, init_weights=True),
    torchvision("maxvit_t", 224),
    torchvision("swin_v2_t", 64),
    torchvision("deeplabv3_mobilenet_v3_large", 64, "segmentation", weights_backbone=None),
    torchvision("lraspp_mobilenet_v3_large", 64, "segmentation", weights_backbone=None),
    torchvision("fcn_resnet50", 64, "segmentation", weights_backbone=None),
]  # fmt: skip
TORCHVISION_VIDEO = [
    Network(f"tv_{name}", "torchvision", one.build, {"clip": floats("batch", 3, 4, 32, 32)})
    for name, one in ((name, torchvision(name, kind="video")) for name in ("r3d_18", "mc3_18", "r2plus1d_18"))
]

SEGMENTATION = [
    *(segmentation(kind) for kind in ("Unet", "UnetPlusPlus", "Linknet", "FPN", "MAnet", "DeepLabV3", "DeepLabV3Plus", "PSPNet", "UPerNet")),
    segmentation("PAN", smallest=128),
    segmentation("Unet", "mobilenet_v2"),
    segmentation("Unet", "timm-efficientnet-b0"),
    segmentation("Segformer", "mit_b0"),
]  # fmt: skip

VOLUME = {"volume": floats("batch", 1, 32, 32, 32)}
SLICE = {"slice": floats("batch", 1, 32, 32)}
SHAPES = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
MEDICAL = [
    medical("UNet", VOLUME, **SHAPES, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
    medical("AttentionUnet", VOLUME, **SHAPES, channels=(8, 16, 32), strides=(2, 2)),
    medical("BasicUNet", VOLUME, **SHAPES, features=(8, 8, 16, 16, 32, 8)),
    medical("SegResNet", VOLUME, **SHAPES, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)),
    medical("DynUNet", VOLUME, **SHAPES, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 32]),
    medical("VNet", SLICE, spatial_dims=2, in_channels=1, out_channels=2),
    medical("UNETR", VOLUME, in_channels=1, out_channels=2, img_size=32, feature_size=8, hidden_size=32, mlp_dim=64, num_heads=4),
    medical("SwinUNETR", {"slice": floats("batch", 1, 64, 64)}, spatial_dims=2, in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)),
    medical("HighResNet", VOLUME, **SHAPES),
    medical("DenseNet121", SLICE, spatial_dims=2, in_channels=1, out_channels=3),
    medical("SEResNet50", SLICE, spatial_dims=2, in_channels=1, num_classes=3),
    medical("ViT", VOLUME, in_channels=1, img_size=32, patch_size=16, hidden_size=32, mlp_dim=64, num_layers=2, num_heads=4),
    medical("AutoEncoder", SLICE, spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 16), strides=(2, 2)),
]  # fmt: skip

CLIPS = [
    clip("vit", 32, layers=2, width=32, head_width=8, patch_size=8),
    clip("resnet", 64, layers=(1, 1, 1, 1), width=16),
]

YOLOS = [
    *(yolo(name) for name in ("yolov5@", "yolov8@", "yolo11@", "yolo12@", "yolo26@", "yolov3-tiny", "yolov9t", "yolov10n")),
    yolo("yolov8@-seg", kind="SegmentationModel"),
    yolo("yolov8@-pose", kind="PoseModel"),
    yolo("yolov8@-obb", kind="OBBModel"),
    yolo("yolo11@-cls", kind="ClassificationModel"),
    yolo("rtdetr-resnet50", kind="RTDETRDetectionModel", side=128),
]  # fmt: skip

UNET = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
}
LATENT = {"sample": floats("batch", 4, 16, 16), "timestep": integers(1000, "batch")}
TEXTS = {"encoder_hidden_states": floats("batch", 6, 32)}
DIFFUSION = [
    diffusion("unet2d", lambda m: m.UNet2DModel(**UNET, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")), LATENT),
    diffusion("unet2d_condition", lambda m: m.UNet2DConditionModel(**UNET, cross_attention_dim=32, attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")), {**LATENT, **TEXTS}),
    diffusion("vae_tiny", lambda m: m.AutoencoderTiny(encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)), {"sample": floats("batch", 3, 32, 32)}),
    diffusion("vae_kl", lambda m: m.AutoencoderKL(block_out_channels=(16, 32), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2), {"sample": floats("batch", 3, 32, 32)}),
    diffusion("dit", lambda m: m.DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=1, sample_size=16, num_embeds_ada_norm=1000), {"hidden_states": floats("batch", 4, 16, 16), "timestep": integers(1000, "batch"), "class_labels": integers(1000, "batch")}),
    diffusion("sd3", lambda m: m.SD3Transformer2DModel(sample_size=16, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=16), {"hidden_states": floats("batch", 4, 16, 16), **TEXTS, "pooled_projections": floats("batch", 16), "timestep": integers(1000, "batch")}),
]  # fmt: skip

NETWORKS = [*TIMM, *TORCHVISION, *TORCHVISION_VIDEO, *SEGMENTATION, *MEDICAL, *CLIPS, *YOLOS, *DIFFUSION]
