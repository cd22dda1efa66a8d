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


def from_torchvision(name: str, shape: tuple[int, ...], **config) -> tuple[torch.Tensor, str]:
    """Output of a classic of torchvision with dense layers of config's sizes; it writes no config.json, so this is ours."""
    from torch.nn import Linear
    from torchvision import models

    classes = config["num_classes"]
    if name == "vgg":
        spec = [word if word == "M" else int(word) for word in config["spec"].split()]
        model = models.VGG(models.vgg.make_layers(spec, config["batch_norm"]), classes, init_weights=False)
        first, second = config["hidden_dims"]
        dense = {0: Linear(49 * spec[-2], first), 3: Linear(first, second), 6: Linear(second, classes)}
    elif name == "alexnet":
        model, hidden = models.alexnet(num_classes=classes), config["hidden_dim"]
        dense = {1: Linear(9216, hidden), 4: Linear(hidden, hidden), 6: Linear(hidden, classes)}
    else:
        model, dense = models.get_model(name, num_classes=classes, aux_logits=False, init_weights=False), {}
    for place, layer in dense.items():
        model.classifier[place] = layer
    model.double().eval().load_state_dict(filled(model.state_dict()))
    with torch.inference_mode():
        return model(images(*shape)), json.dumps({"architecture": name, **config})


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


tiny_resnet = {"embedding_size": 8, "num_labels": 7}
tiny_vit = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "num_labels": 7}
pool = {"global_pool": "avg", "class_token": False, "fc_norm": False}
CASES = {
    "resnet18-timm": (from_timm, "resnet18", (2, 3, 64, 64), {"num_classes": 10}),
    "resnet34-timm": (from_timm, "resnet34", (2, 3, 64, 64), {"num_classes": 10}),
    "resnet50-timm": (from_timm, "resnet50", (2, 1, 64, 64), {"num_classes": 10, "in_chans": 1}),
    "resnext50-timm": (from_timm, "resnext50_32x4d", (2, 3, 64, 64), {"num_classes": 10, "layers": [1, 2, 1, 1]}),
    "preresnet18-timm": (from_timm, "resnetv2_18", (2, 3, 64, 64), {"num_classes": 10, "layers": [2, 1, 1, 1]}),
    "preresnet50-timm": (from_timm, "resnetv2_50", (2, 1, 64, 64), {"num_classes": 10, "in_chans": 1, "layers": [2, 1, 1, 1]}),
    "densenet121-timm": (from_timm, "densenet121", (2, 3, 64, 64),
                         {"num_classes": 10, "block_config": [2, 3, 2], "growth_rate": 8}),
    "vgg11-timm": (from_timm, "vgg11_bn", (2, 3, 64, 64), {"num_classes": 10, "mlp_ratio": 1 / 64}),
    "vgg-torchvision": (from_torchvision, "vgg", (2, 3, 64, 64),
                        {"spec": "8 M 16 16 M 24 M 32 M 512 M", "in_channels": 3, "num_classes": 10, "hidden_dims": [48, 32],
                         "batch_norm": False}),
    "alexnet-torchvision": (from_torchvision, "alexnet", (2, 3, 96, 96),
                            {"in_channels": 3, "num_classes": 10, "channels": [64, 192, 384, 256, 256], "hidden_dim": 32}),
    "googlenet-torchvision": (from_torchvision, "googlenet", (2, 3, 80, 80), {"in_channels": 3, "num_classes": 10}),
    "vit-tiny-timm": (from_timm, "vit_tiny_patch16_224", (2, 3, 48, 48), {"num_classes": 10, "img_size": 48}),
    "vit-mean-timm": (from_timm, "vit_tiny_patch16_224", (2, 3, 16, 16),
                      {"num_classes": 10, "img_size": 16, "patch_size": 4, "depth": 3, **pool}),
    "resnet-basic-transformers": (from_transformers, "ResNet", (2, 3, 48, 48),
                                  {"layer_type": "basic", "hidden_sizes": [8, 16, 32], "depths": [2, 1, 2], **tiny_resnet}),
    "resnet-bottleneck-transformers": (from_transformers, "ResNet", (2, 1, 48, 48),
                                       {"layer_type": "bottleneck", "num_channels": 1, "hidden_sizes": [32, 64],
                                        "depths": [2, 3], **tiny_resnet}),
    "vit-transformers": (from_transformers, "ViT", (2, 3, 32, 32), {"image_size": 32, "patch_size": 8, **tiny_vit}),
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
