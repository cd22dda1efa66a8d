"""Processes that train and are killed: forked from a server that has imported torch once."""

import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import sklearn.datasets  # noqa: F401
import tensorboard.summary.writer.record_writer  # noqa: F401
import torch
import torch._dynamo  # torch.optim imports it when an optimiser is made
import torch.distributed.fsdp
from scenes import small_digits

import thalweg.inspection.report
import thalweg.recipes.vision
from thalweg import cli
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import sgd
from thalweg.training.run import run

FORKED = multiprocessing.get_context("forkserver")


def process(target, *arguments):
    """A started process; its module and those of pytest are there when it starts."""
    here = str(Path(__file__).parent)
    if here not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    FORKED.set_forkserver_preload(["pytest", "processes"])
    started = FORKED.Process(target=target, args=arguments)
    started.start()
    return started


def ended(words, **options):
    """Exit status and words on stdout and stderr of a command that ran to its end; it draws nothing if not asked to."""
    started, reader = begun(words, **options)
    started.join()
    return started.exitcode, said(reader)


def begun(words, largest_file=None, draws=False):
    """A started command, and where what it says can be read."""
    reader, writer = FORKED.Pipe(duplex=False)
    started = process(command, list(map(str, words)), writer, largest_file, draws)
    writer.close()
    return started, reader


def said(reader):
    """What a command that ended has said; a progress bar counts as what it showed last."""
    text = b""
    while part := os.read(reader.fileno(), 1 << 16):
        text += part
    return [line.rpartition("\r")[2] for line in text.decode().removesuffix("\n").split("\n")]


def command(words, writer, largest_file, draws):
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    writer.close()
    torch.set_num_threads(1)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if not draws:
        Classification.figures = lambda task, batch: {}
        thalweg.inspection.report.write_report = lambda folder: folder / "report.html"
    sys.argv = ["thalweg", *words]
    cli.main(words)


RECIPE = f"{__file__}:tiny"


def tiny(*, epochs: int = 3, lr: float = 0.1, pause: float = 0.0) -> Experiment:
    """A small network reads some digits."""
    made = small_digits(steps=4 * epochs, optimizer=sgd(lr, momentum=0.9, weight_decay=1e-3))
    made.train.augment += (lambda batch, random: time.sleep(pause) or batch,)
    return made


def train(folder, resume, operation=None, **options):
    """A run that draws nothing; it kills itself before its file operation of that number."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    Classification.figures = lambda task, batch: {}
    training = Training(small_digits(**options), device="cpu")
    if operation is not None:
        _kill_before(operation, str(folder))
    warnings.simplefilter("ignore")
    run(training, folder, {}, checkpoint_every=3, resume=resume, progress=False)


def _kill_before(operation, folder):
    done = 0

    def count(event, arguments):
        nonlocal done
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(folder):
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(count)
