"""Clips of different lengths: padding says nothing, a picture alone says nothing, the order says all."""

from fractions import Fraction

import pytest
import torch
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.clips import MOTIONS, Clips, moved, moving_digits
from thalweg.data.sources import digits
from thalweg.data.video import write_video
from thalweg.inspection.predict import read
from thalweg.models.vision.clip import ClipClassifier
from thalweg.models.vision.lenet import lenet
from thalweg.recipes.video import clip_motions
from thalweg.training import Training, evaluate


def small():
    return build(ClipClassifier, frame=build(lenet, image_size=8, num_classes=4), frame_dim=4, num_classes=3, hidden_dim=5)


def test_a_point_moves_as_its_motion_says_and_comes_in_where_it_did_not_leave():
    image = torch.zeros(1, 5, 5)
    image[0, 2, 1] = 1

    def places(motion, speed=1, length=6):
        return [divmod(int(frame.argmax()), 5) for frame in moved(image, MOTIONS.index(motion), speed, length)]

    assert places("still") == [(2, 1)] * 6
    assert places("left") == [(2, 1), (2, 0), (2, 4), (2, 3), (2, 2), (2, 1)]
    assert places("down", 2) == [(2, 1), (4, 1), (1, 1), (3, 1), (0, 1), (2, 1)]
    assert places("up")[:3] == [(2, 1), (1, 1), (0, 1)]
    assert places("to and fro") == [(2, 1), (2, 2), (2, 3), (2, 2), (2, 1), (2, 2)]
    assert places("up and down", 2, 5) == [(2, 1), (4, 1), (1, 1), (4, 1), (2, 1)]


def test_clips_of_different_lengths_lie_side_by_side_with_a_mask():
    frames = [torch.full((time, 1, 2, 3), time, dtype=torch.uint8) for time in (3, 1, 2)]
    batch = Clips(frames, torch.tensor([5, 6, 7]), 3).fetch(torch.tensor([1, 0]))
    assert batch["frames"].shape == (2, 3, 1, 2, 3)
    assert batch["mask"].tolist() == [[True, False, False], [True, True, True]]
    assert batch["frames"][:, :, 0, 0, 0].tolist() == [[1, 0, 0], [3, 3, 3]]
    assert batch["label"].tolist() == [6, 5]
    with pytest.raises(ValueError, match="label: 2 for 3 clips"):
        Clips(frames, torch.zeros(2), 2)


def test_what_stands_behind_a_clip_changes_nothing_and_the_batch_neither():
    model = small().double().eval()
    frames = torch.rand(2, 6, 1, 8, 8, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    together = model(frames, mask)
    assert_close(model(frames[1:, :4], mask[1:, :4])[0], together[1], rtol=1e-10, atol=1e-10)
    other = torch.where(mask[..., None, None, None], frames, 7.0)
    assert torch.equal(model(other, mask), together)
    state = torch.zeros(1, 5, dtype=torch.float64)
    for picture in frames[0]:  # picture by picture
        state = one_step(model, picture, state)
    assert_close(model.head(state)[0], together[0], rtol=1e-10, atol=1e-10)


def one_step(model, picture, state):
    """The arithmetic of a gated recurrent unit."""
    x, context = model.frame(picture[None]), model.context
    read, kept = (x @ context.weight_ih_l0.T + context.bias_ih_l0, state @ context.weight_hh_l0.T + context.bias_hh_l0)
    (reset, update, new), (reset_h, update_h, new_h) = read.chunk(3, 1), kept.chunk(3, 1)
    gate = (update + update_h).sigmoid()
    return gate * state + (1 - gate) * (new + (reset + reset_h).sigmoid() * new_h).tanh()


def test_a_picture_alone_tells_no_motion():
    clips, label = moving_digits(digits().train["image"], 1500, 0, size=16)
    bright = torch.stack([clip[-1, 0].float() for clip in clips])
    weight = (bright - 40).clamp(min=0)
    for share in (weight.sum(1), weight.sum(2)):  # where it stands at last, across and down
        centre = share.argmax(1).float()
        means = torch.stack([centre[label == motion].mean() for motion in range(len(MOTIONS))])
        assert (means - means.mean()).abs().max() < 4 * 16 / 12**0.5 / (1500 / len(MOTIONS)) ** 0.5


def test_how_digits_move_is_learned_and_a_file_is_told(tmp_path):
    torch.manual_seed(0)
    experiment = clip_motions(epochs=5, clips=1200)
    training = Training(experiment, device="cpu")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.valid))["accuracy"] > 0.35  # of one picture: 1/7
    save(experiment.task, tmp_path)
    task, batch = load(tmp_path), next(iter(experiment.test))
    said = task.predict(batch, top_k=1)["label"]
    right = sum(row == [MOTIONS[label]] for row, label in zip(said, batch["label"].tolist(), strict=True))
    assert right > 0.3 * len(said)
    assert set(training.evaluated.figures(batch)) == {"confusion", "most wrong"}


def test_a_video_file_is_read_whole(tmp_path):
    pictures = [(torch.full((3, 16, 16), 40 * number, dtype=torch.uint8), number / 10) for number in range(5)]
    write_video(tmp_path / "clip.mp4", pictures, Fraction(10))
    experiment = clip_motions(clips=50)
    found = read(experiment.task, str(tmp_path / "clip.mp4"))
    assert found["frames"].shape == (1, 5, 3, 16, 16)
    assert len(experiment.task.eval().predict(found, top_k=2)["label"][0]) == 2
