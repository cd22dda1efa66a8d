"""Video files: what is written is read, turned as a camera says, and what is none is one line."""

import sys
from fractions import Fraction

import pytest
import torch

from thalweg.data.video import about, read_video, write_video

av = pytest.importorskip("av", reason="av is not installed: pip install 'thalweg[video]'")


def clip(count=9, height=33, width=47):
    """A bright square that moves to the right over grey."""
    frames = torch.full((count, 3, height, width), 90, dtype=torch.uint8)
    for number in range(count):
        frames[number, 0, 8:20, 3 * number : 3 * number + 12] = 240
    return frames


def test_what_is_written_is_read_with_its_times(tmp_path):
    frames, times = clip(), [0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]  # one takes twice as long
    write_video(tmp_path / "a.mp4", zip(frames, times, strict=True), Fraction(10))
    said = about(tmp_path / "a.mp4")
    assert (said.frames, said.sound) == (9, False)
    read = list(read_video(tmp_path / "a.mp4"))
    assert [seconds for _, seconds in read] == pytest.approx(times, abs=1e-3)
    assert read[0][0].shape == (3, 34, 48)  # even, as H.264 needs
    for number, (image, _) in enumerate(read):
        assert (image[:, :33, :47].float() - frames[number].float()).abs().mean() < 4
        bright = (image[0] > 190).nonzero().float().mean(0)
        assert (bright - torch.tensor([13.5, 3 * number + 5.5])).abs().max() < 1


def test_what_is_no_video_is_one_line(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"words" * 100)
    write_video(tmp_path / "b.mp4", ((frame, number / 10) for number, frame in enumerate(clip())), Fraction(10))
    whole = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(ValueError, match=rf"{name}: not a video that can be read \([^\n]+\)$"):
            list(read_video(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        about(tmp_path / "none.mp4")


def test_a_video_without_pictures_is_refused_and_nothing_is_written_of_none(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.add_stream("aac", rate=8000)
        container.start_encoding()
    with pytest.raises(ValueError, match=r"a\.mkv: (holds no pictures|not a video)"):
        about(tmp_path / "a.mkv")

    def broken():
        raise ValueError("first")
        yield

    with pytest.raises(ValueError, match="first"):
        write_video(tmp_path / "b.mp4", broken(), Fraction(10))
    assert not (tmp_path / "b.mp4").exists()


def test_without_its_library_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"videos need av, .*pip install 'thalweg\[video\]'"):
        about(tmp_path / "a.mp4")
