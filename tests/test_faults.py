"""Kills at any moment, damaged files, full disks, signals: nothing is lost but time, and what happened is said in one line."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import RECIPE, begun, ended, process, said, train

from thalweg.build import load
from thalweg.data.sources import digits
from thalweg.training.recorder import read_metrics
from thalweg.weights import read_tensors

START = ["run", RECIPE, "--checkpoint-every", "3", "--out"]
OPERATIONS = 72  # of files, at least, in a run of `train`: each is a moment to be killed at


def result(folder):
    """What a finished run came to: its weights, and its metrics but for the time they took."""
    tensors, _ = read_tensors(folder / "model" / "model.safetensors")
    lines = [{name: value for name, value in line.items() if name != "time"} for line in read_metrics(folder / "metrics.jsonl")]
    return tensors, lines


def assert_same(folder, straight):
    (tensors, lines), (expected, expected_lines) = result(folder), straight
    assert lines == expected_lines
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value), name


def assert_whole(folder):
    """No file is half written: at worst the last line of the metrics is cut."""
    for path in folder.rglob("[!.]*.safetensors"):
        read_tensors(path)
    for path in folder.rglob("[!.]*.json"):
        json.loads(path.read_text())
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = path.read_text().split("\n")
        assert len(read_metrics(path)) in (len(lines), len(lines) - 1)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing happened to, and its seconds."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    process(train, folder.parent / "first", False).join()
    start = time.perf_counter()
    process(train, folder, False).join()
    seconds = time.perf_counter() - start
    assert_same(folder.parent / "first", result(folder))  # or no comparison below says anything
    return *result(folder), seconds


@pytest.fixture(scope="module")
def straight_command(tmp_path_factory):
    """The same of the command."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert ended([*START, folder])[0] == 0
    return result(folder)


def resumed(folder, straight):
    again = process(train, folder, True)
    again.join()
    assert again.exitcode == 0
    assert_same(folder, straight)
    assert_whole(folder)
    assert list(folder.rglob("*.partial")) == []


# Kills


def test_a_run_killed_at_25_moments_and_resumed_is_the_run_that_was_not(tmp_path, straight):
    *straight, seconds = straight
    moments, killed = random.Random(0), 0
    for number in range(60):
        folder = tmp_path / str(number)
        started = process(train, folder, False)
        time.sleep(seconds * moments.uniform(0.1, 1))
        started.kill()
        started.join()
        if started.exitcode == 0:  # it was over before, as the machine has become faster
            seconds *= 0.9
            continue
        killed += 1
        assert_whole(folder)
        resumed(folder, straight)
        if killed == 25:
            return
    raise AssertionError(f"{killed} of 60 runs were killed before their end, expected 25")


@pytest.mark.parametrize(
    "operations", [range(5, OPERATIONS, 11), pytest.param(range(OPERATIONS), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_run_killed_before_any_operation_on_a_file_and_resumed_is_the_run_that_was_not(tmp_path, straight, operations):
    *straight, _ = straight
    for number in operations:
        folder = tmp_path / str(number)
        started = process(train, folder, False, number)
        started.join()
        assert started.exitcode == -signal.SIGKILL
        assert_whole(folder)
        resumed(folder, straight)


def test_a_run_killed_again_and_again_arrives(tmp_path, straight):
    *straight, _ = straight
    folder, kills = tmp_path / "run", 0
    for number in range(26, OPERATIONS):
        started = process(train, folder, kills > 0, number)
        started.join()
        if started.exitcode == 0:
            break
        kills += 1
        assert_whole(folder)
    assert kills > 3
    assert_same(folder, straight)


@pytest.mark.slow
def test_the_command_killed_at_25_moments_and_resumed_ends_with_the_same_weights(tmp_path):
    words = ["run", "lenet-digits", "--steps", "40", "--checkpoint-every", "3", "--out"]
    assert ended([*words, tmp_path / "first"])[0] == 0  # now torch is imported where the others are forked from
    start = time.perf_counter()
    assert ended([*words, tmp_path / "straight"])[0] == 0
    seconds, straight = time.perf_counter() - start, result(tmp_path / "straight")
    moments, killed = random.Random(0), 0
    for number in range(25):
        folder = tmp_path / str(number)
        started, _ = begun([*words, folder])
        time.sleep(seconds * moments.uniform(0.1, 0.9))
        started.kill()
        started.join()
        killed += started.exitcode == -signal.SIGKILL
        assert_whole(folder)
        again = ["run", "--resume", folder] if (folder / "run.json").exists() else [*words, folder]
        assert ended(again)[0] == 0
        assert_same(folder, straight)
        shutil.rmtree(folder)
    assert killed > 15


def test_a_run_without_a_checkpoint_starts_from_its_beginning_and_says_so(tmp_path, straight_command):
    folder = tmp_path / "run"
    assert ended([*START, folder], draws=True)[0] == 0
    shutil.rmtree(folder / "checkpoints")
    status, words = ended(["run", "--resume", folder], draws=True)
    assert status == 0
    assert words[0] == f"thalweg: {folder} holds no checkpoint yet: the run starts from its beginning"
    assert_same(folder, straight_command)


# Damage


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """A run of the command that was stopped in the middle, to be copied."""
    folder = tmp_path_factory.mktemp("halted") / "run"
    stop([*START, folder, "--pause", "0.05"], folder, signal.SIGTERM, step=6)
    return folder


def copied(halted, folder):
    shutil.copytree(halted, folder)
    return sorted((folder / "checkpoints").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_resumed(tmp_path, halted, straight_command, damage):
    newest = copied(halted, tmp_path / "run")[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[: len(content) // 3], "flipped": content, "empty": b""}[damage])
    status, words = ended(["run", "--resume", tmp_path / "run"])
    assert status == 0
    assert re.fullmatch(rf"thalweg: {newest} is damaged: .*; trying the checkpoint before it", words[0])
    assert_same(tmp_path / "run", straight_command)


def test_where_every_checkpoint_is_damaged_the_run_does_not_silently_start_anew(tmp_path, halted):
    paths = copied(halted, tmp_path / "run")
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    status, words = ended(["run", "--resume", tmp_path / "run"])
    assert status == 2
    assert "; trying the checkpoint before it" in words[0]
    named = ", ".join(path.name for path in paths)
    assert words[-1] == (
        f"thalweg: {tmp_path / 'run' / 'checkpoints'}: every checkpoint is damaged: {named}. Put a copy of one of them back, "
        "or start the run anew in another folder"
    )
    assert len(words) == 1 + len(paths)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_damaged_record_of_the_run_is_named(tmp_path, halted):
    copied(halted, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text()[:-20])
    status, words = ended(["run", "--resume", tmp_path / "run"])
    assert (status, len(words)) == (2, 1)
    assert words[0].startswith(f"thalweg: {path} is damaged: ")


# No room


def assert_full(status, words, folder):
    """The run ended in one line that says so, and left nothing half written."""
    assert status == 2, words
    told = [line for line in words if "step/s" not in line and "%|" not in line]
    assert len(told) == 1, words
    assert re.fullmatch(
        rf"thalweg: the disk is full while writing to {folder} \(.*\); files written before are whole\. Free some space, "
        rf"then: thalweg run --resume {folder}", told[0])  # fmt: skip
    assert list(folder.rglob("*.partial")) == []
    assert_whole(folder)


@pytest.mark.parametrize("largest", [300, 1500, 9_000, 30_000])
def test_a_file_that_may_not_grow_ends_the_run_in_one_line_and_it_goes_on_when_it_may(tmp_path, straight_command, largest):
    folder = tmp_path / "run"
    status, words = ended([*START, folder], largest_file=largest)
    if not folder.exists() or not (folder / "run.json").exists():
        assert largest == 300
    assert_full(status, words, folder)
    again = ["run", "--resume", folder] if (folder / "run.json").exists() else [*START, folder]
    assert ended(again)[0] == 0
    assert_same(folder, straight_command)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("free", [0, 8_000, 30_000, 60_000, 100_000, 140_000])
def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(small_disk, straight_command, free):
    folder, ballast = small_disk / "run", small_disk / "ballast"
    room = os.statvfs(small_disk)
    ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - free)))
    status, words = ended([*START, folder])
    assert_full(status, words, folder)
    ballast.unlink()
    again = ["run", "--resume", folder] if (folder / "run.json").exists() else [*START, folder]
    assert ended(again)[0] == 0
    assert_same(folder, straight_command)


# Signals


def stop(words, folder, *signals, step, apart=0.1):
    """Starts a command and, when it has a checkpoint of that step, sends it the signals, seconds apart; status and words."""
    started, reader = begun(words)
    while started.is_alive() and not (folder / "checkpoints" / f"step-{step:08}.safetensors").exists():
        time.sleep(0.001)
    for number in signals:
        os.kill(started.pid, number)
        time.sleep(apart)
    started.join()
    return started.exitcode, said(reader)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, straight_command, number, status):
    folder = tmp_path / "run"
    words = ["run", RECIPE, "--pause", "0.1", "--out", folder, "--checkpoint-every", "3"]
    code, words = stop(words, folder, number, step=3)
    assert code == status
    found = re.fullmatch(rf"thalweg: stopped at step (\d+) and saved\. Go on with: thalweg run --resume {folder}", words[-1])
    assert found, words
    assert (folder / "checkpoints" / f"step-{int(found[1]):08}.safetensors").exists()
    assert 3 < int(found[1]) < 12
    assert ended(["run", "--resume", folder])[0] == 0
    assert_same(folder, straight_command)


def test_a_second_interrupt_does_not_wait(tmp_path):
    folder = tmp_path / "run"
    words = ["run", RECIPE, "--pause", "8", "--out", folder, "--checkpoint-every", "1"]
    code, words = stop(words, folder, signal.SIGINT, signal.SIGINT, step=1, apart=1)  # so that they do not become one
    assert code == 130
    assert words[-1] == "thalweg: interrupted"
    assert not (folder / "checkpoints" / "step-00000002.safetensors").exists()  # for which one interrupt would have waited
    assert_whole(folder)


# What is no number


def test_a_loss_that_is_no_number_ends_the_command_in_one_line(tmp_path):
    folder = tmp_path / "run"
    status, words = ended(["run", RECIPE, "--lr", "1e20", "--out", folder, "--checkpoint-every", "1"])
    assert status == 2
    told = [line for line in words if "%|" not in line]
    assert len(told) == 1
    what = r"(train/loss|the norm of the weights) is (nan|inf) at step \d+ on the training examples \[[\d, ]+\]"
    advice = "Lower the learning rate, lengthen the warm-up, set clip, or run in --precision fp32; if it is always these "
    assert re.fullmatch(rf"thalweg: {what}\. {advice}examples, look at them", told[0])
    for path in (folder / "checkpoints").iterdir():
        tensors, _ = read_tensors(path)
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert all(parameter.isfinite().all() for parameter in load(Path(folder) / "model").parameters())


# Broken images


def test_a_folder_with_a_twentieth_of_broken_images_trains_and_says_which_were_skipped(tmp_path):
    examples = digits().train
    for number, (image, label) in enumerate(zip(examples["image"][:95, 0], examples["label"][:95], strict=True)):
        path = tmp_path / "photos" / ("even" if label % 2 == 0 else "odd") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
    whole = sorted((tmp_path / "photos" / "odd").iterdir())[0].read_bytes()
    broken = {
        "empty": b"",
        "words": b"no image",
        "cut": whole[: len(whole) // 2],
        "zeros": bytes(200),
        "page": b"<html></html>",
    }
    for name, content in broken.items():
        (tmp_path / "photos" / "odd" / f"{name}.png").write_bytes(content)
    folder = tmp_path / "run"
    status, words = ended(["run", "image-classifier", "--data", tmp_path / "photos", "--steps", "3", "--out", folder])
    assert status == 0, words
    told = [line for line in words if "skipped" in line]
    assert len(told) == 1
    assert "skipped 5 of 100 files: odd/cut.png (" in told[0]
    assert told[0].endswith(" and 2 more")
    assert json.loads((folder / "run.json").read_text())["notes"]["left out"] in told[0]
    assert (folder / "model" / "model.safetensors").exists()
