"""Image models answer what timm, torchvision and transformers answer: public folder in, golden output out, and back."""

import json
from pathlib import Path

import pytest
import torch
from parity import filled, images
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thalweg.models.vision.alexnet import AlexNet
from thalweg.models.vision.convnext import ConvNeXt
from thalweg.models.vision.densenet import DenseNet
from thalweg.models.vision.efficientnet import efficientnet_b0, efficientnet_lite1, efficientnet_lite2
from thalweg.models.vision.googlenet import googlenet_bn
from thalweg.models.vision.mobilenet import MobileNetV2, mobilenetv2
from thalweg.models.vision.preresnet import PreResNet
from thalweg.models.vision.resnet import ResNet, resnet18, resnet34, resnet50
from thalweg.models.vision.swin import Swin
from thalweg.models.vision.vgg import VGG, vgg11
from thalweg.models.vision.vit import ViT, vit_tiny_16
from thalweg.public import export, layouts, pretrained
from thalweg.weights import to_public

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [
    ("resnet18-timm", resnet18),
    ("resnet34-timm", resnet34),
    ("resnet50-timm", resnet50),
    ("resnext50-timm", ResNet),
    ("preresnet18-timm", PreResNet),
    ("preresnet50-timm", PreResNet),
    ("densenet121-timm", DenseNet),
    ("vgg11-timm", vgg11),
    ("vgg-torchvision", VGG),
    ("alexnet-torchvision", AlexNet),
    ("googlenet-torchvision", googlenet_bn),
    ("resnet-basic-transformers", ResNet),
    ("resnet-bottleneck-transformers", ResNet),
    ("mobilenetv2-timm", mobilenetv2),
    ("mobilenetv2-narrow-timm", MobileNetV2),
    ("mobilenetv2-torchvision", mobilenetv2),
    ("efficientnet-b0-timm", efficientnet_b0),
    ("efficientnet-lite1-timm", efficientnet_lite1),
    ("efficientnet-lite2-timm", efficientnet_lite2),
    ("convnext-tiny-timm", ConvNeXt),
    ("swin-tiny-timm", Swin),
    ("deit-tiny-timm", vit_tiny_16),
    ("vit-tiny-timm", vit_tiny_16),
    ("vit-mean-timm", ViT),
    ("vit-transformers", ViT),
]


def write_folder(folder, case, builder):
    """A public folder in float64: the library's own config.json, and weights by their public names."""
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
        header, output = file.metadata(), file.get_tensor("output")
    layout = layouts(builder)[case.rpartition("-")[2]]
    (folder / "config.json").write_text(header["config"])
    stated = layout.arguments(json.loads(header["config"]))
    own = builder if isinstance(builder, type) else builder.__annotations__["return"]
    public = to_public(own(**stated).state_dict(), layout.table)
    save_file(filled(public), folder / "model.safetensors")
    return images(*json.loads(header["image"])), output


@pytest.fixture(params=CASES, ids=[case for case, _ in CASES], scope="module")
def public(request, tmp_path_factory):
    case, builder = request.param
    folder = tmp_path_factory.mktemp(case)
    image, output = write_folder(folder, case, builder)
    torch.set_default_dtype(torch.float64)
    yield pretrained(builder, folder), folder, case, image, output
    torch.set_default_dtype(torch.float32)


@torch.inference_mode()
def test_the_model_of_a_public_folder_answers_what_its_library_answers(public):
    model, _, _, image, output = public
    assert (model(image) - output).abs().max() <= 1e-10 * output.abs().max()


def test_a_public_checkpoint_goes_in_and_out_bit_equal(public, tmp_path):
    model, folder, case, _, _ = public
    export(model, tmp_path, case.rpartition("-")[2])
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_an_exported_config_describes_the_same_model(public):
    model, folder, case, _, _ = public
    layout = layouts(type(model))[case.rpartition("-")[2]]
    assert layout.arguments(layout.config(model)) == layout.arguments(json.loads((folder / "config.json").read_text()))


def wrong_epsilon(model, monkeypatch):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps *= 2


def wrong_gelu(model, monkeypatch):
    monkeypatch.setattr("thalweg.models.vision.vit.gelu", lambda x: torch.nn.functional.gelu(x, approximate="tanh"))


def stride_on_the_first_convolution(model, monkeypatch):
    for stage in model.stages[1:]:
        stage[0].layers[0][0].stride, stage[0].layers[1][0].stride = (2, 2), (1, 1)


def layers_joined_the_other_way(model, monkeypatch):
    def other(maps, dim):
        return torch.concat(maps[::-1], dim)

    monkeypatch.setattr("thalweg.models.vision.densenet.torch.cat", other)


def rows_and_columns_exchanged(model, monkeypatch):
    weight = model.dense[0].weight
    weight.data = weight.data.unflatten(1, (-1, 7, 7)).mT.flatten(1)


def another_window(model, monkeypatch):
    pool = next(module for module in model.modules() if isinstance(module, torch.nn.MaxPool2d))
    pool.kernel_size = 2


def query_and_key_exchanged(model, monkeypatch):
    for block in model.blocks:
        query, key, value = block.attention.qkv.weight.data.chunk(3)
        block.attention.qkv.weight.data = torch.cat([key, query, value])


@pytest.mark.parametrize(
    ("case", "builder", "mutation"),
    [
        ("resnet-basic-transformers", ResNet, wrong_epsilon),
        ("resnet-bottleneck-transformers", ResNet, stride_on_the_first_convolution),
        ("preresnet18-timm", PreResNet, wrong_epsilon),
        ("densenet121-timm", DenseNet, layers_joined_the_other_way),
        ("vgg11-timm", vgg11, rows_and_columns_exchanged),
        ("alexnet-torchvision", AlexNet, another_window),
        ("googlenet-torchvision", googlenet_bn, another_window),
        ("vit-transformers", ViT, wrong_gelu),
        ("vit-transformers", ViT, query_and_key_exchanged),
        ("vit-mean-timm", ViT, wrong_epsilon),
    ],
)
@torch.inference_mode()
def test_the_golden_files_see_a_model_that_is_a_little_wrong(case, builder, mutation, tmp_path, monkeypatch):
    image, output = write_folder(tmp_path, case, builder)
    torch.set_default_dtype(torch.float64)
    model = pretrained(builder, tmp_path)
    torch.set_default_dtype(torch.float32)
    mutation(model, monkeypatch)
    assert (model(image) - output).abs().max() > 1e-8 * output.abs().max()  # a hundred times the bar
