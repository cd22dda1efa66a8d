"""A run: the loop with everything a person wants around it, in a folder that survives a kill at any moment.

run.json (recipe, arguments, seed, versions, commit), metrics.jsonl, TensorBoard events, checkpoints/, model/ (the best
weights, a folder that `load` reads), figures/, report.html (written by `thalweg.inspection.report`).
"""

import errno
import json
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from thalweg.build import load, save
from thalweg.training import distribution
from thalweg.training.loop import Training, evaluate
from thalweg.training.machine import place_module, trim_memory
from thalweg.training.optimisers import Together, parts
from thalweg.training.recorder import Diverged, Recorder
from thalweg.training.task import Task
from thalweg.weights import CorruptFile, write_whole


class Stopped(Exception):
    """A run that ended before its end, in words for the person who started it; status: of the process.

    diverged: it would end so again.
    """

    def __init__(self, words: str, status: int = 2, *, diverged: bool = False):
        super().__init__(words)
        self.status, self.diverged = status, diverged


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf8"))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Stopped, with what to do, where the folder of a run cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Stopped(f"the disk is full while writing to {folder} ({error.strerror}); files written before are whole. "
                          f"Free some space, then: thalweg run --resume {folder}") from error  # fmt: skip
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise Stopped(f"{folder} cannot be written to: {error}") from error
        raise


def run(
    training: Training,
    folder: Path,
    facts: dict[str, Any],
    *,
    checkpoint_every: int | None = None,
    resume: bool = False,
    lr_scale: float = 1.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains, evaluates, keeps the best weights, tests them, draws; returns the facts with seconds and metrics.

    facts: what run.json says about how the run was started.   checkpoint_every: steps; each evaluation if None.
    lr_scale: a factor on the learning rates of a resumed run, from where it goes on.
    Stopped, with what to do, if the loss is no number, the disk is full, no checkpoint is whole, or the person
    pressed Ctrl-C.
    """
    if not hasattr(training.task, "history"):
        raise ValueError(f"task: {type(training.task).__name__} was not made by build, so its model could not be saved")
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return _run(training, folder, facts, checkpoint_every, resume, lr_scale, progress)
    except Diverged as error:
        raise Stopped(f"{error}{_examples(training, error.step)}. Lower the learning rate, lengthen the warm-up, set clip, or "
                      "run in --precision fp32; if it is always these examples, look at them",
                      diverged=True) from error  # fmt: skip
    except RuntimeError as error:
        if distribution.lost(error):
            raise Stopped(f"another process has gone and said why. Go on with --resume {folder}") from error
        raise
    except CorruptFile as error:
        raise Stopped(f"{error}. Put a copy of one of them back, or start the run anew in another folder") from error


def _examples(training: Training, step: int) -> str:
    """Which examples a step saw, where the stream knows."""
    if not hasattr(training.experiment.train, "indices"):
        return ""
    pieces = training.experiment.accumulate
    batches = [training.experiment.train.indices(number).tolist() for number in range((step - 1) * pieces, step * pieces)]
    return f" on the training examples {[index for batch in batches for index in batch]}"


def _run(training, folder, facts, checkpoint_every, resume, lr_scale, progress) -> dict[str, Any]:
    experiment, first = training.experiment, distribution.rank() == 0
    best: dict[str, Any] = {"value": None, "step": 0, "since": 0, "seconds": 0.0, "lines": 0}
    if resume:
        best = _restored(training, folder) or best
        if lr_scale != 1:
            training.lr_scale *= lr_scale
            training.save(folder / "checkpoints", best)  # so that a kill does not forget it
            facts = {**facts, "lr_scales": [*facts.get("lr_scales", []), [training.number, lr_scale]]}
    facts = {**facts, "precision": training.precision, "device": str(training.device), "steps": experiment.length}
    with ExitStack() as held:
        recorder = None
        if first:
            recorder = held.enter_context(Recorder(folder, lines=best["lines"], step=training.number, before=best["seconds"]))
            write_json(folder / "run.json", facts)
        _train(training, folder, best, recorder, checkpoint_every or experiment.evaluate_every, progress and first)
        if experiment.monitor is None or experiment.valid is None:
            keep(training, folder)
        return _finish(training, folder, facts, best, recorder)


def _restored(training: Training, folder: Path) -> dict[str, Any] | None:
    """Goes back to the newest whole checkpoint; what was the best until then, or None where there is none."""
    if distribution.rank() == 0:
        for left in folder.rglob(".*.partial"):  # by a kill
            left.unlink(missing_ok=True)
    best = training.restore(folder / "checkpoints")
    if best is None:
        warnings.warn(f"{folder} holds no checkpoint yet: the run starts from its beginning", stacklevel=2)
    return best


def _train(training: Training, folder: Path, best: dict[str, Any], recorder: Recorder | None, every: int, shown: bool) -> None:
    """The steps, with an evaluation and a checkpoint where they are due."""
    experiment = training.experiment

    def early() -> bool:
        return experiment.patience is not None and best["since"] >= experiment.patience

    def finite() -> None:
        """Diverged, before anything is kept, if a loss or a weight is no number."""
        if recorder:
            recorder.flush()
        weights = [p for p in training.task.parameters() if p.is_floating_point()]
        norm = distribution.whole(torch.nn.utils.get_total_norm(weights))
        if not norm.isfinite():
            raise Diverged(training.number, "the norm of the weights", float(norm))

    with _bar(training, shown) as bar, _interruptible() as received:
        if training.number == 0:
            _look(training, folder, best, recorder)
        for step in training if not early() else ():
            if recorder:
                recorder.write(step)
            bar.update()
            last, stop = training.number == experiment.length, distribution.anywhere(bool(received))
            looks = last or training.number % (experiment.evaluate_every or 1) == 0
            if looks or stop or training.number % every == 0:
                finite()
                if looks:
                    _look(training, folder, best, recorder)
                if recorder:
                    best.update(seconds=recorder.seconds, lines=recorder.lines)
                training.save(folder / "checkpoints", best)
                trim_memory()
            if recorder and recorder.latest:
                bar.set_postfix(_shown(recorder.latest, best), refresh=False)
            if stop and not last:
                raise Stopped(f"stopped at step {training.number} and saved. Go on with: thalweg run --resume {folder}",
                              128 + (received[0] if received else signal.SIGINT))  # fmt: skip
            if early():
                break


def _look(training: Training, folder: Path, best: dict[str, Any], recorder: Recorder | None) -> None:
    """Evaluates, and keeps the weights if they are the best."""
    experiment = training.experiment
    if experiment.valid is None:
        return
    metrics = dict(evaluate(training, experiment.valid))
    if recorder:
        recorder.write_metrics(training.number, "valid", metrics.items())
    if experiment.monitor is None:
        return
    if experiment.monitor not in metrics:
        raise ValueError(f"monitor={experiment.monitor!r}: the task measures {sorted(metrics)}")
    value, before = float(metrics[experiment.monitor]), best["value"]
    higher = training.evaluated.metrics[experiment.monitor].higher_is_better
    if higher is None:
        raise ValueError(f"monitor={experiment.monitor!r}: the metric does not say whether more of it is better or worse")
    if before is None or math.isnan(before) or (value > before if higher else value < before):
        best.update(value=value, step=training.number, since=0)
        keep(training, folder)
    else:
        best["since"] += 1
        if experiment.plateau:
            training.lr_scale *= experiment.plateau(best["since"])


def keep(training: Training, folder: Path) -> None:
    """Writes the evaluated weights as the run's model."""
    task = training.evaluated
    state = {name: distribution.whole(tensor) for name, tensor in task.state_dict().items()}
    if distribution.rank() == 0:
        save(task, folder / "model", state)


def _finish(training, folder, facts, best, recorder) -> dict[str, Any]:
    """Tests the kept weights and draws."""
    experiment = training.experiment
    tested = None
    if distribution.world_size() > 1:
        torch.distributed.barrier()
    if experiment.test or experiment.valid:
        part = "test" if experiment.test else "valid"
        stream = experiment.test or experiment.valid
        kept = cast(Task, load(folder / "model"))
        place_module(kept, training.device)
        measured = dict(evaluate(training, stream, kept))
        tested = {name: (value, getattr(kept.metrics[name], "higher_is_better", None)) for name, value in measured.items()}
        if recorder:
            scalars = recorder.write_metrics(training.number, part, measured.items())
            metrics = {f"{part}/{name}": {"value": scalars[name], "higher_is_better": tested[name][1]} for name in scalars}
            facts = {**facts, "seconds": round(recorder.seconds, 2), "best_step": best["step"], "best_value": best["value"],
                     "metrics": metrics}  # fmt: skip
            with torch.inference_mode():
                drawn = kept.figures(training.place(next(iter(stream))))
            (folder / "figures").mkdir(exist_ok=True)
            for name, figure in drawn.items():
                path = folder / "figures" / f"{name.replace(' ', '-')}.png"
                write_whole(path, partial(figure.savefig, format="png"))
    if recorder:
        made = [part for o in training.optimizers.values() for part in parts(o) if type(part) is not Together]
        names = {type(o).__name__ + (" (fused)" if o.defaults.get("fused") else "") for o in made}
        facts = {
            "seconds": round(recorder.seconds, 2),
            **facts,
            "parameters": sum(parameter.numel() for parameter in training.task.parameters()),
            "optimizer": ", ".join(sorted(names)),
            "copies": training.copies,
        }
        write_json(folder / "run.json", facts)
    return facts


def _shown(latest: dict[str, float], best: dict[str, Any]) -> dict[str, str]:
    losses = {name.removeprefix("train/"): value for name, value in latest.items() if name.endswith("loss")}
    if len(losses) > 4:
        losses = {f"mean of {len(losses)} losses": sum(losses.values()) / len(losses)}
    return {name: f"{value:.4g}" for name, value in losses.items()} | (
        {"best": f"{best['value']:.4g}"} if best["value"] is not None else {}
    )


@contextmanager
def _bar(training: Training, shown: bool) -> Iterator[tqdm]:
    with tqdm(total=training.experiment.length, initial=training.number, unit="step", disable=not shown,
              dynamic_ncols=True, smoothing=0.05) as bar:  # fmt: skip
        yield bar


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The signals received: the first Ctrl-C or SIGTERM lets the step finish; a second one is an ordinary interrupt.

    Under torchrun a Ctrl-C arrives twice, from the terminal and from torchrun: further ones change nothing, then or later.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        if distribution.world_size() == 1:
            restore()

    def restore() -> None:
        for name, old in before.items():
            signal.signal(name, old)

    before = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        if not received or distribution.world_size() == 1:
            restore()
