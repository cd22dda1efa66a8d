"""Remakes the golden files: what timm and transformers answer, in float64, with the weights of tests/parity.py.

    python tests/golden/make.py [NAME ...]

needs timm, transformers and torchvision, which the tests do not. A file holds the output alone; its header says which
version made it, of what shape the input was, and the config.json that the library writes for the model.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from parity import filled, images, tokens  # noqa: E402


def from_timm(name: str, shape: tuple[int, ...], **arguments) -> tuple[torch.Tensor, str]:
    """Output and config.json of a model of timm."""
    import timm
    from timm.models import save_for_hf

    model = timm.create_model(name, **arguments).double().eval()
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, safe_serialization=True)
        config = (Path(folder) / "config.json").read_text()
    model.load_state_dict(filled(model.state_dict()))
    with torch.inference_mode():
        return model(images(*shape)), config


def from_transformers(name: str, shape: tuple[int, ...], **arguments) -> tuple[torch.Tensor, str]:
    """Output and config.json of an image classifier of transformers; filled by the names in its file, not in memory."""
    import transformers

    kind = getattr(transformers, f"{name}ForImageClassification")
    with tempfile.TemporaryDirectory() as folder:
        kind(getattr(transformers, f"{name}Config")(**arguments)).save_pretrained(folder)
        file, config = Path(folder) / "model.safetensors", (Path(folder) / "config.json").read_text()
        save_file(filled(load_file(file)), file, {"format": "pt"})
        model = kind.from_pretrained(folder, dtype=torch.float64).eval()
        with torch.inference_mode():
            return model(images(*shape)).logits, config


def language_from_transformers(name: str, shape: tuple[int, ...], **arguments) -> tuple[torch.Tensor, str]:
    """Logits and config.json of a language model of transformers; filled by the names in its file, not in memory."""
    import transformers

    kind = getattr(transformers, f"{name}LMHeadModel")
    with tempfile.TemporaryDirectory() as folder:
        kind(getattr(transformers, f"{name}Config")(**arguments)).save_pretrained(folder)
        file, config = Path(folder) / "model.safetensors", (Path(folder) / "config.json").read_text()
        save_file(filled(load_file(file)), file, {"format": "pt"})
        model = kind.from_pretrained(folder, dtype=torch.float64).eval()
        with torch.inference_mode():
            return model(tokens(*shape, vocab_size=arguments["vocab_size"])).logits, config


def regions_from_torchvision(
    name: str, shape: tuple[int, ...], depths: list[int], channels: int, hidden: int, num_classes: int
) -> tuple[torch.Tensor, str]:
    """All logits and offsets of the networks in a Mask R-CNN of torchvision, its heads on noise, in one row."""
    from torchvision.models.detection import mask_rcnn
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
    from torchvision.models.resnet import Bottleneck, ResNet

    layers = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    trunk = BackboneWithFPN(ResNet(Bottleneck, depths), layers, [256, 512, 1024, 2048], channels)
    model = getattr(mask_rcnn, name)(
        trunk,
        rpn_head=mask_rcnn.RPNHead(channels, 3),
        box_head=TwoMLPHead(49 * channels, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_classes),
        mask_head=mask_rcnn.MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes),
    )
    model = model.double().eval()
    model.load_state_dict(filled(model.state_dict()))
    with torch.inference_mode():
        maps = list(model.backbone(images(*shape)).values())
        logits, offsets = model.rpn.head(maps)
        heads = model.roi_heads
        found = [x.movedim(1, 3).flatten() for x in (*logits, *offsets)]
        found += heads.box_predictor(heads.box_head(images(2, channels, 7, 7)))
        found.append(heads.mask_predictor(heads.mask_head(images(2, channels, 4, 4))))
    return torch.cat([x.flatten() for x in found]), "{}"


tiny_resnet = {"embedding_size": 8, "num_labels": 7}
tiny_vit = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "num_labels": 7}
pool = {"global_pool": "avg", "class_token": False, "fc_norm": False}
CASES = {
    "resnet18-timm": (from_timm, "resnet18", (2, 3, 64, 64), {"num_classes": 10}),
    "resnet34-timm": (from_timm, "resnet34", (2, 3, 64, 64), {"num_classes": 10}),
    "resnet50-timm": (from_timm, "resnet50", (2, 1, 64, 64), {"num_classes": 10, "in_chans": 1}),
    "vit-tiny-timm": (from_timm, "vit_tiny_patch16_224", (2, 3, 48, 48), {"num_classes": 10, "img_size": 48}),
    "vit-mean-timm": (from_timm, "vit_tiny_patch16_224", (2, 3, 16, 16),
                      {"num_classes": 10, "img_size": 16, "patch_size": 4, "depth": 3, **pool}),
    "resnet-basic-transformers": (from_transformers, "ResNet", (2, 3, 48, 48),
                                  {"layer_type": "basic", "hidden_sizes": [8, 16, 32], "depths": [2, 1, 2], **tiny_resnet}),
    "resnet-bottleneck-transformers": (from_transformers, "ResNet", (2, 1, 48, 48),
                                       {"layer_type": "bottleneck", "num_channels": 1, "hidden_sizes": [32, 64],
                                        "depths": [2, 3], **tiny_resnet}),
    "vit-transformers": (from_transformers, "ViT", (2, 3, 32, 32), {"image_size": 32, "patch_size": 8, **tiny_vit}),
    "maskrcnn-torchvision": (regions_from_torchvision, "MaskRCNN", (1, 3, 64, 48),
                             {"depths": [1, 1, 1, 1], "channels": 6, "hidden": 10, "num_classes": 4}),
    "gpt2-transformers": (language_from_transformers, "GPT2", (2, 16),
                          {"vocab_size": 50, "n_positions": 20, "n_embd": 24, "n_layer": 3, "n_head": 3}),
}  # fmt: skip


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        ask, name, shape, arguments = CASES[case]
        output, config = ask(name, shape, **arguments)
        library = case.rpartition("-")[2]
        given = "tokens" if ask is language_from_transformers else "image"
        header = {"peer": f"{library} {version(library)}", given: json.dumps(shape), "config": config}
        save_file({"output": output.contiguous()}, HERE / f"{case}.safetensors", header)
        print(case, header["peer"], tuple(output.shape), f"largest {output.abs().max():.3g}, spread {output.std():.3g}")
