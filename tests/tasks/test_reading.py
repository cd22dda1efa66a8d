"""Reading: the loss counts every way to say the text, small words are learned, and a reader comes back from its folder."""

from itertools import groupby, product

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.testing import assert_close

from thalweg.build import adapt, build, load, save
from thalweg.data.images import png
from thalweg.data.plates import symbols
from thalweg.data.streams import TensorStream
from thalweg.inspection.predict import answer
from thalweg.layers.standardize import standardize
from thalweg.models.vision.crnn import CRNN
from thalweg.tasks.reading import Reading
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

ALPHABET = "17LX"


class Given(nn.Module):
    """Logits that stand in the place of an image."""

    def forward(self, image):
        return image[:, 0]


def pictures(count, seed):
    """Two to four symbols somewhere on a small image, and their tokens."""
    random = torch.Generator().manual_seed(seed)
    font, images, texts = ImageFont.load_default(26), [], []
    for _ in range(count):
        length = int(torch.randint(2, 5, (), generator=random))
        text = "".join(ALPHABET[place] for place in torch.randint(4, (length,), generator=random))
        canvas = Image.new("L", (72, 32), 0)
        ImageDraw.Draw(canvas).text((int(torch.randint(0, 8, (), generator=random)), 15), text, 255, font, "lm")
        images.append(torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(1, 32, 72))
        texts.append(text)
    return {"image": torch.stack(images), "tokens": symbols(texts, ALPHABET)}, texts


def test_the_loss_of_a_text_is_that_of_all_ways_to_say_it():
    logits = torch.randn(2, 1, 5, 3, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[1, 1], [2, 0]])
    task = Reading(Given(), "ab").double()
    found, count = task.loss({"image": logits, "tokens": tokens})
    expected = torch.zeros((), dtype=torch.float64)
    for row, text in zip(logits[:, 0].float().softmax(-1), ([1, 1], [2]), strict=True):
        ways = [path for path in product(range(3), repeat=5) if [s for s, _ in groupby(path) if s] == text]
        expected = expected - sum(row[range(5), path].prod() for path in ways).log()
    assert count == 2
    assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)
    for one, other in zip(*(torch.autograd.grad(loss, logits, retain_graph=True) for loss in (found, expected)), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_direct_reader_adds_what_the_convolutions_see_of_each_column():
    image = torch.rand(2, 1, 32, 40)
    model = CRNN(5, width=4, hidden_dim=8, direct=True).eval()
    both = model(image)
    direct, model.direct = model.direct, None
    assert_close(both - model(image), direct(model.stages(image).squeeze(2).mT))


def test_a_text_too_long_for_the_columns_does_not_count():
    task = Reading(Given(), "ab")
    logits = torch.randn(2, 1, 2, 3, requires_grad=True)
    loss, _ = task.loss({"image": logits, "tokens": torch.tensor([[1, 1], [1, 2]])})  # "aa" needs a blank between
    loss.backward()
    assert loss.isfinite()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_what_is_measured_are_whole_texts_and_symbols():
    task = Reading(Given(), "abc")
    paths = torch.tensor([[1, 0, 1, 2], [3, 3, 0, 0], [0, 0, 0, 0]])  # aab, c, nothing
    logits = 9.0 * nn.functional.one_hot(paths, 4)[:, None]
    task.evaluate({"image": logits, "tokens": torch.tensor([[1, 1, 2], [3, 2, 0], [1, 0, 0]])})
    assert task.metrics["exact"].compute() == pytest.approx(1 / 3)
    assert task.metrics["error"].compute() == pytest.approx(2 / 6)


def test_readings_come_best_first_with_their_probabilities():
    task = Reading(Given(), "ab")
    found = task.predict({"image": torch.tensor([[[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]]]).log()}, top_k=2)
    assert found["label"] == [["a", ""]]
    assert found["probability"].tolist() == [pytest.approx([0.64, 0.36])]
    with pytest.raises(ValueError, match="top_k=0, beam=16"):
        task.predict({"image": torch.zeros(1, 1, 2, 3)}, top_k=0)


def test_an_alphabet_has_different_symbols():
    with pytest.raises(ValueError, match="alphabet='aba'"):
        Reading(Given(), "aba")


def test_it_learns_to_read_and_reads_a_file_when_it_is_back(tmp_path):
    torch.manual_seed(0)
    train, _ = pictures(256, 0)
    held, texts = pictures(64, 1)
    model = build(CRNN, num_classes=5, width=4, hidden_dim=16, num_layers=1)
    task = build(Reading, model=adapt(model, standardize, mean=[0.2], deviation=[0.4], size=[32, 72]), alphabet=ALPHABET)
    stream = TensorStream(train, 32, shuffle=True)
    training = Training(Experiment(task=task, train=stream, epochs=14, clip=5.0, optimizer=adamw(2e-2),
                                   schedule=warmup(0.1, linear())), device="cpu")  # fmt: skip
    for _ in training:
        pass
    assert dict(evaluate(training, TensorStream(held, 64)))["exact"] > 0.9
    save(task, tmp_path / "model")
    reader = load(tmp_path / "model")
    files = []
    for number, image in enumerate(held["image"][:5]):
        (tmp_path / f"{number}.png").write_bytes(png(image))
        files.append(str(tmp_path / f"{number}.png"))
    said = [line.partition(": ")[2].split()[0] for line in answer(reader, files)]
    assert sum(one == text for one, text in zip(said, texts, strict=False)) >= 4
