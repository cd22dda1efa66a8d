"""Two processes end where one ends: same losses, same weights, same metrics, same files."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pair
import pytest
import torch
from processes import RECIPE, process

from thalweg.training.recorder import read_metrics

PARALLEL = ("replicate", "shard")
SAME = [
    pair.lenet_5,
    pair.clipped_and_accumulated,
    pair.averaged,
    pair.stacked,
    pair.switching,
    pair.game,
    pair.masked,
    pair.follower,
]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each job returned in each of the two processes, by job and its arguments; started once for all of them."""
    folder = tmp_path_factory.mktemp("pair")
    jobs = [(job, (parallel,)) for job in [*SAME, pair.evaluated, pair.names, pair.refused] for parallel in PARALLEL]
    jobs += [(pair.threads, ("replicate",)), (pair.experts, ("replicate",))]
    for parallel in PARALLEL:
        jobs.append((pair.whole_run, (folder / parallel, parallel)))
        for experiment in (pair.digits_experiment, pair.noisy_experiment):
            place = folder / f"{experiment.__name__}-{parallel}"
            jobs += [(pair.saved, (place, experiment, parallel)), (pair.restored, (place, experiment, parallel))]
    pair.saved(folder / "alone", pair.digits_experiment, "replicate")
    jobs += [(pair.restored, (folder / "alone", pair.digits_experiment, parallel)) for parallel in PARALLEL]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [process(pair.member, rank, port, jobs, folder) for rank in (0, 1)]
    for member in members:
        member.join(300)
    assert [member.exitcode for member in members] == [0, 0]
    results = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    found = {}
    for (job, arguments), first, second in zip(jobs, *results, strict=True):
        found[job.__name__, *map(str, arguments[:1]), arguments[-1]] = first, second
    return folder, found


def assert_close(one, other, tolerance=1e-5):
    """The same numbers within rounding, the same names."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_close(one[name], other[name], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_close(first, second, tolerance)
    else:
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=tolerance, atol=tolerance)


def both(together, *key):
    """What the first process said, which is what the second did."""
    first, second = together[1][key]
    assert_close(first, second, 0.0)
    return first


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("job", SAME, ids=lambda job: job.__name__)
def test_two_processes_learn_what_one_learns(together, job, parallel):
    ours, alone = both(together, job.__name__, parallel, parallel), job(parallel)
    assert_close(ours["losses"], alone["losses"])
    assert_close(ours["norms"], alone["norms"], 1e-4)
    assert_close(ours["weights"], alone["weights"], 2e-4)
    assert len(ours["losses"]) >= 12


def test_a_layer_that_only_one_process_used_learns_and_one_that_none_used_stays(together):
    ours, alone = both(together, "experts", "replicate", "replicate"), pair.experts("replicate")
    assert_close(ours["losses"], alone["losses"])
    assert_close(ours["weights"], alone["weights"])


@pytest.mark.parametrize("parallel", PARALLEL)
def test_metrics_are_over_all_examples(together, parallel):
    ours, alone = both(together, "evaluated", parallel, parallel), pair.evaluated(parallel)
    for when, tolerance in (("before", 1e-6), ("after", 1e-4)):
        assert ours[when]["accuracy"] == alone[when]["accuracy"]
        assert torch.equal(ours[when]["confusion"], alone[when]["confusion"])
        assert ours[when]["confusion"].sum() == 101
        assert_close(ours[when]["loss"], alone[when]["loss"], tolerance)
        assert_close(ours[when]["most_wrong"]["loss"], alone[when]["most_wrong"]["loss"], tolerance)
        assert torch.equal(ours[when]["most_wrong"]["image"], alone[when]["most_wrong"]["image"])
    assert_close(ours["losses"], alone["losses"])


@pytest.mark.parametrize("parallel", PARALLEL)
def test_names_stay(together, parallel):
    assert both_equal(together, "names", parallel, parallel) == pair.names(parallel)


def both_equal(together, *key):
    first, second = together[1][key]
    assert first == second
    return first


@pytest.mark.parametrize("parallel", PARALLEL)
def test_what_many_processes_cannot_do_is_said(together, parallel):
    words = both_equal(together, "refused", parallel, parallel)
    assert words[-2] == (
        "batch: {'features': (24, 3), 'target': (24,), 'mask': (24,), 'edges': (2, 7)} cannot be divided among processes, "
        "expected as many rows in each"
    )
    assert words[-1] == "batch: {'scale': ()} cannot be divided among processes, expected as many rows in each"
    own = "parallel='shard': expected the parameters ['scale'] of Owner inside a network of it"
    assert words[:-2] == ([own] if parallel == "shard" else [])


def test_processes_share_the_cores_and_agree(together):
    first, second = together[1]["threads", "replicate", "replicate"]
    assert first["agreed"] == second["agreed"]
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["anywhere"] == second["anywhere"] == [True, False]


# Files


@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_run_of_two_processes_leaves_the_folder_of_one(together, tmp_path, parallel):
    folder, found = together
    first, second = found["whole_run", str(folder / parallel), parallel]
    alone = pair.whole_run(tmp_path, "replicate")
    assert second["metrics"] is None  # the first writes
    for name, held in alone["metrics"].items():
        assert first["metrics"][name]["value"] == pytest.approx(held["value"], abs=1e-4), name
    assert_close(first["logits"], alone["logits"], 1e-3)
    assert torch.equal(first["logits"], second["logits"])
    files, expected = ({str(path.relative_to(root)) for path in root.rglob("*") if "tfevents" not in path.name}
                       for root in (folder / parallel, tmp_path))  # fmt: skip
    assert files == expected
    lines, expected = (read_metrics(root / "metrics.jsonl") for root in (folder / parallel, tmp_path))
    for line, other in zip(lines, expected, strict=True):
        assert_close({**line, "time": 0}, {**other, "time": 0}, 1e-4)


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("experiment", [pair.digits_experiment, pair.noisy_experiment], ids=lambda made: made.__name__)
def test_two_processes_go_on_from_their_checkpoint_bit_for_bit(together, experiment, parallel):
    folder, found = together
    place = str(folder / f"{experiment.__name__}-{parallel}")
    assert_close(found["restored", place, parallel][0], found["saved", place, parallel][0], 0.0)
    assert_close(found["restored", place, parallel][1], found["saved", place, parallel][1], 0.0)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_checkpoint_of_two_processes_is_one_of_one_process(together, parallel):
    folder, found = together
    place = folder / f"digits_experiment-{parallel}"
    alone = pair.restored(place, pair.digits_experiment, "replicate")
    assert_close(alone, found["saved", str(place), parallel][0], 2e-4)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_checkpoint_of_one_process_is_one_of_two_processes(together, parallel):
    folder, found = together
    alone = pair.restored(folder / "alone", pair.digits_experiment, "replicate")
    assert_close(found["restored", str(folder / "alone"), parallel][0], alone, 2e-4)


# The command


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "thalweg", "run"]


def torchrun(*words, limit="true"):
    """The command in two processes: status, stdout, stderr.   limit: what the shell does before."""
    line = f"{limit}; exec {shlex.join([*TORCHRUN, *map(str, words)])}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr.replace("\r", "\n")


def said(err):
    """Lines of the command on stderr: who, what."""
    return re.findall(r"^(thalweg.*?): (.*)$", err, re.MULTILINE)


def test_torchrun_runs_the_command(tmp_path):
    folder = tmp_path / "run"
    status, out, err = torchrun(RECIPE, "--parallel", "shard", "--out", folder, "--steps", "5")
    assert status == 0, err
    assert out.count(f"run: {folder}\n") == 1
    assert json.loads((folder / "run.json").read_text())["steps"] == 5
    assert "</html>" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_torchrun_resumes_and_refuses(tmp_path):
    folder = tmp_path / "run"
    assert torchrun(RECIPE, "--out", folder, "--steps", "5")[0] == 0
    shutil.rmtree(folder / "model")
    status, _, err = torchrun(RECIPE, "--out", folder)
    words = f"--out {folder}: holds a run already; go on with it by --resume {folder}, or name another folder"
    assert status != 0
    assert sorted(said(err)) == [("thalweg", words), ("thalweg process 1", words)], err
    for path in (folder / "checkpoints").iterdir():  # those of an evaluation at step 4 and at the end
        if "5" in path.name:
            path.unlink()
    assert torchrun("--resume", folder)[0] == 0
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_when_one_process_fails_the_other_does_too_and_what_happened_is_said_once(tmp_path):
    folder = tmp_path / "run"
    status, _, err = torchrun(RECIPE, "--out", folder, "--checkpoint-every", "1", limit="ulimit -f 20")
    assert status != 0
    assert "[rank" not in err, err  # the trace of an error of a process
    words = dict(said(err))
    assert words["thalweg"].startswith(f"the disk is full while writing to {folder}")
    assert words["thalweg process 1"] == f"another process has gone and said why. Go on with --resume {folder}"


@pytest.mark.slow
def test_an_interrupt_of_all_processes_saves_once_and_the_run_goes_on(tmp_path):
    straight, folder = tmp_path / "straight", tmp_path / "run"
    assert torchrun(RECIPE, "--epochs", "12", "--out", straight, "--checkpoint-every", "3")[0] == 0
    words = [RECIPE, "--epochs", "12", "--pause", "0.2", "--out", str(folder), "--checkpoint-every", "3"]
    started = subprocess.Popen([*TORCHRUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    while started.poll() is None and not (folder / "checkpoints" / "step-00000009.safetensors").exists():
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    _, err = started.communicate()
    saved = rf"stopped at step (\d+) and saved\. Go on with: thalweg run --resume {folder}"
    found = re.findall(rf"^thalweg.*: {saved}$", err.replace("\r", "\n"), re.MULTILINE)
    assert len(found) == 2, err
    assert len(set(found)) == 1
    assert torchrun("--resume", folder)[0] == 0
    lines, expected = (
        [{name: value for name, value in line.items() if name != "time"} for line in read_metrics(root / "metrics.jsonl")]
        for root in (folder, straight)
    )
    assert lines == expected
