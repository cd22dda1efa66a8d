"""Images of the same kind lie near in the features of a network, as the command says and draws."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from thalweg.build import adapt, build, save
from thalweg.inspection.similar import similar
from thalweg.layers.standardize import standardize
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.resnet import resnet9


@pytest.fixture
def folder(tmp_path):
    """Five images of lying stripes and five of standing ones, noisy, and a file that is none."""
    torch.manual_seed(1)
    for kind in ("lying", "standing"):
        (tmp_path / kind).mkdir()
        for number in range(5):
            stripes = 60 * (torch.arange(32) // 4 % 2)[:, None].expand(32, 32)
            pixels = (stripes if kind == "lying" else stripes.T) + torch.randint(0, 100, (32, 32))
            Image.fromarray(pixels.byte().numpy()).save(tmp_path / kind / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def model():
    torch.manual_seed(0)
    return adapt(build(resnet9, width=8), standardize, mean=[0.3] * 3, deviation=[0.2] * 3, size=[32, 32]).eval()


@pytest.mark.filterwarnings("ignore:.*are no images")
def test_the_nearest_images_are_those_of_the_same_kind(folder, model):
    for kind in ("lying", "standing"):
        found = similar(model, folder, folder / kind / "2.png", count=4)
        assert [path.parent.name for path, _ in found] == [kind] * 4
        assert folder / kind / "2.png" not in [path for path, _ in found]
        cosines = [cosine for _, cosine in found]
        assert cosines == sorted(cosines, reverse=True)
        assert all(-1 <= cosine <= 1 + 1e-6 for cosine in cosines)


def test_what_is_no_image_is_counted(folder, model):
    with pytest.warns(UserWarning, match="1 of 10 files are no images"):
        similar(model, folder, folder / "lying" / "0.png")


def test_what_cannot_be_compared_is_refused(folder, model, tmp_path_factory):
    with pytest.raises(ValueError, match="MLP is no backbone"):
        similar(build(mlp, in_features=4, out_features=2), folder, folder / "lying" / "0.png")
    with pytest.raises(ValueError, match="holds no image beside the query"):
        similar(model, tmp_path_factory.mktemp("empty"), folder / "lying" / "0.png")
    with pytest.raises(ValueError, match="count=0"):
        similar(model, folder, folder / "lying" / "0.png", count=0)


def test_the_command_lists_and_draws(folder, model, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    save(model, place / "model")
    words = ["similar", str(place / "model"), str(folder), str(folder / "lying" / "1.png"), "--count", "3"]
    done = subprocess.run([sys.executable, "-m", "thalweg", *words], capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "lying" in line]) == 3
    assert (place / "similar.png").stat().st_size > 1000
