"""A folder of images becomes a table of names, in the order of the numbers in the names of the files."""

import torch
from PIL import Image

from thalweg.build import adapt, build
from thalweg.inspection.submission import submission
from thalweg.layers.standardize import standardize
from thalweg.models.classical.linear import softmax_regression
from thalweg.tasks.classification import Classification


def test_every_image_is_named_in_the_order_of_the_numbers(tmp_path):
    model = build(softmax_regression, in_channels=1, image_size=4, num_classes=2)
    with torch.no_grad():
        model.head.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))  # bright or dark
        model.head.bias.zero_()
    task = build(Classification, model=adapt(model, standardize, mean=[0.5], deviation=[0.5], size=[4, 4]),
                 classes=["dark", "bright"])  # fmt: skip
    (tmp_path / "test").mkdir()
    for number in (10, 2, 1):
        Image.new("L", (4, 4), 250 if number == 2 else 5).save(tmp_path / "test" / f"{number}.png")
    submission(task, tmp_path / "test", tmp_path / "answer.csv")
    assert (tmp_path / "answer.csv").read_text().split() == ["id,label", "1,dark", "2,bright", "10,dark"]
