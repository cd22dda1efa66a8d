"""The loop: an iterator of steps. Whoever wants to log, evaluate, stop or draw writes a `for`.

    training = Training(lenet_fashion_mnist(lr=0.002))
    for step in training:
        recorder.write(step)

A loss is a sum and a count: sums are backpropagated, the gradient is divided once by the total count, so neither
accumulation nor padding nor the number of processes changes the result.
"""

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from thalweg.training import checkpoint, distribution
from thalweg.training.distribution import Parallel
from thalweg.training.experiment import Experiment, Stream
from thalweg.training.machine import Precision, default_device, native_bf16, place_module
from thalweg.training.optimisers import parts
from thalweg.training.task import Task
from thalweg.vocabulary import Batch

NORM_EVERY = 50  # steps between gradient norms where none is needed for clipping
STATISTICS = 100  # batches, of a pass at most, from which an equal average of weights has its batch norms' statistics


@dataclass(slots=True)
class Step:
    """What a step did, by player ("" is the task itself): tensors, read when wanted."""

    number: int
    lr: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor | int] = field(default_factory=dict)
    gradient_norms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def losses(self) -> dict[str, Tensor]:
        """The mean of the terms of each player's loss."""
        return {player: total / _divisor(self.counts[player]) for player, total in self.sums.items()}


def _divisor(count: Tensor | int) -> Tensor | int:
    """1 where nothing was counted: sum and gradient are 0 there, and stay 0 instead of becoming 0 / 0."""
    return count + (count == 0)


class Training:
    """The state of a run, iterated step by step; everything a checkpoint must hold is in state_dict().

    precision: "auto" multiplies in bf16 where the device has instructions for it, weights stay in float32.
    copies: tensors of batches carried to the device; nothing else is, and nothing is carried back by a step.
    lr_scale: a factor on the learning rate, on top of the schedule, for whoever loops to change on the way.
    parallel: under `torchrun`, "replicate" or "shard".
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        compile: bool = False,
        parallel: Parallel = "replicate",
    ):
        self.experiment, self.task = experiment, experiment.task
        self.device = torch.device(device) if device else default_device()
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision={precision!r}: expected auto, fp32 or bf16")
        self.precision = ("bf16" if native_bf16(self.device) else "fp32") if precision == "auto" else precision
        self.number, self.lr_scale, self.copies = 0, 1.0, 0
        distribution.start(self.device)
        place_module(self.task, self.device)
        averages = experiment.ema is not None or experiment.swa is not None
        self.average: Task | None = deepcopy(self.task).requires_grad_(False) if averages else None
        self._averaged_from = int((experiment.swa or 0.0) * experiment.length)
        self._normed = -1  # the step of which the average has its statistics
        if compile:
            for network in self.task.children():
                network.compile()
        if parallel == "shard" and distribution.world_size() > 1:
            for copy in filter(None, (self.task, self.average)):
                distribution.shard(copy)
        # Whether the count of the terms is known only when all pieces and processes have had theirs.
        self._divides_later = experiment.accumulate > 1 or distribution.world_size() > 1
        self._inverses: dict[tuple[int, torch.dtype], Tensor] = {}
        self._players: dict[nn.Module, tuple[str, Optimizer, list[nn.Parameter]]] = {}

    @property
    def evaluated(self) -> Task:
        """The task whose weights count: the average where one is kept and has begun."""
        if self.average is None or self.number < self._averaged_from:
            return self.task
        if self.experiment.swa is not None and self._normed != self.number:
            self._norm(self.average)
            self._normed = self.number
        return self.average

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def place(self, batch: Batch) -> Batch:
        """This process's share of a batch, on the device."""
        placed = {}
        for name, value in distribution.share(batch).items():
            if value.device != self.device:
                value = value.to(self.device, non_blocking=True)
                self.copies += 1
            placed[name] = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        return placed

    def __iter__(self) -> Iterator[Step]:
        experiment, task = self.experiment, self.task
        batches = experiment.train.batches(self.number * experiment.accumulate)
        while self.number < experiment.length:
            if not task.training:
                task.train()
            step = Step(self.number + 1)
            if experiment.accumulate == 1:
                players = task.losses(self.place(next(batches)))
                while True:
                    with self.autocast():  # around the task's own code only, not around the step taken at its yield
                        term = next(players, None)
                    if term is None:
                        break
                    self.update(term[0], (term[1:],), step)
            else:
                self.update(task, self._terms(batches), step)
            self.number += 1
            if self.average and self.number >= self._averaged_from:
                self._follow(self.average)
            yield step

    def _terms(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor | int]]:
        for _ in range(self.experiment.accumulate):
            with self.autocast():
                term = self.task.loss(self.place(next(batches)))
            yield term

    def update(self, player: nn.Module, terms: Iterable[tuple[Tensor, Tensor | int]], step: Step) -> None:
        """One step of a player's optimiser on the mean of the terms."""
        name, optimizer, parameters = self._player(player)
        for parameter in parameters:  # also what another player's backward left here
            parameter.grad = None
        together, count = self._backward(terms)
        distribution.sum_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._divides_later:
            together, count = distribution.total(together), distribution.total(count)
            torch._foreach_div_(gradients, _divisor(count))
        if self.experiment.clip or self.number % NORM_EVERY == 0:
            norm = torch.nn.utils.get_total_norm(gradients)
            step.gradient_norms[name] = distribution.whole(norm)
            if self.experiment.clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.experiment.clip, norm)
        factor = self.lr_scale * self.experiment.schedule(self.number / self.experiment.length)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        step.lr = optimizer.param_groups[0]["lr"]
        step.sums[name], step.counts[name] = together, count

    def _backward(self, terms: Iterable[tuple[Tensor, Tensor | int]]) -> tuple[Tensor, Tensor | int]:
        """Adds the gradient of the sum of the terms, or of their mean where that is known at once."""
        sums: list[Tensor] = []
        count: Tensor | int = 0
        for total, number in terms:
            total.backward(None if self._divides_later else self._inverse(number, total))
            sums.append(total.detach())
            count = count + number
        return (torch.stack(sums).sum() if len(sums) > 1 else sums[0]), count

    def _inverse(self, count: Tensor | int, total: Tensor) -> Tensor:
        """1 / count, kept for the counts that come again and again."""
        count = _divisor(count)
        if isinstance(count, Tensor):
            return count.to(total.dtype).reciprocal()
        if (count, total.dtype) not in self._inverses:
            self._inverses[count, total.dtype] = total.new_tensor(float(count)).reciprocal()
        return self._inverses[count, total.dtype]

    @torch.no_grad()
    def _follow(self, average: Task) -> None:
        """average = kept average + (1 - kept) weights, kept = min(ema, (1 + n) / (10 + n)): young averages forget faster.

        Of n weights that count alike kept = (n - 1) / n.
        """
        if self.experiment.ema is not None:
            kept = min(self.experiment.ema, self.number / (9 + self.number))
        else:
            kept = 1 - 1 / (1 + self.number - self._averaged_from)
        groups: dict[tuple[type, bool], tuple[list[Tensor], list[Tensor]]] = {}
        for held, value in zip(average.state_dict().values(), self.task.state_dict().values(), strict=True):
            ours, theirs = groups.setdefault((type(held), held.is_floating_point()), ([], []))
            ours.append(held)
            theirs.append(value)
        for (_, floating), (ours, theirs) in groups.items():
            if floating:
                torch._foreach_lerp_(ours, theirs, 1 - kept)
            else:
                torch._foreach_copy_(ours, theirs)

    @torch.no_grad()
    def _norm(self, average: Task) -> None:
        """Gives the batch norms the statistics that batches have under these weights: their own mean is of other weights'."""
        norms = [module for module in average.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        if not norms:
            return
        kept, stream = [norm.momentum for norm in norms], self.experiment.train
        modes = [(module, module.training) for module in average.modules()]
        average.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # all batches count alike
            norm.train()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), self.autocast():
            for batch in islice(stream.batches(), min(len(stream) if isinstance(stream, Sized) else STATISTICS, STATISTICS)):
                average.loss(self.place(batch))
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode

    def _player(self, player: nn.Module) -> tuple[str, Optimizer, list[nn.Parameter]]:
        if player not in self._players:
            name = next((name for name, module in self.task.named_modules() if module is player), None)
            if name is None:
                raise ValueError(
                    f"{type(self.task).__name__}.losses yielded a {type(player).__name__} that is not its submodule"
                )
            optimizer = self.experiment.optimizer_of(name)(player)
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
            self._players[player] = name, optimizer, [p for p in player.parameters() if p.requires_grad]
        return self._players[player]

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers made so far, by player."""
        return {name: optimizer for name, optimizer, _ in self._players.values()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on."""
        for module in filter(None, (self.task, self.average)):
            distribution.spread_buffers(module)  # so that a restored run, where all have the first's, is the same
        random = {"cpu": distribution.gathered(torch.get_rng_state())}
        if self.device.type == "cuda":
            random["cuda"] = distribution.gathered(torch.cuda.get_rng_state(self.device))
        stream = getattr(self.experiment.train, "state_dict", None)
        return {
            "number": self.number,
            "lr_scale": self.lr_scale,
            "task": self.task.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "average": self.average.state_dict() if self.average else None,
            "stream": stream() if stream else None,
            "random": random,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.lr_scale = state["number"], state.get("lr_scale", 1.0)
        _load(self.task, state["task"])
        for name, held in state["optimizers"].items():
            optimizer = self._player(self.task.get_submodule(name))[1]
            optimizer.load_state_dict(held)
            _lay_out(optimizer)
        if self.average:
            _load(self.average, state["average"])
            self._normed = -1
        if state["stream"] is not None:
            self.experiment.train.load_state_dict(state["stream"])  # type: ignore[attr-defined]
        random = {name: held[distribution.rank() % len(held)].clone() for name, held in state["random"].items()}
        torch.set_rng_state(random["cpu"])
        if "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.device)

    def save(self, folder: Path, beside: Any = None) -> None:
        """Writes a checkpoint, with a plain value beside it."""
        checkpoint.write(folder, self.number, {"training": self.state_dict(), "beside": beside})

    def restore(self, folder: Path) -> Any:
        """Goes back to the newest whole checkpoint; the value beside it, or None where there is no checkpoint."""
        if (state := checkpoint.read(folder)) is None:
            return None
        self.load_state_dict(state["training"])
        return state["beside"]


def evaluate(training: Training, stream: Stream, task: Task | None = None) -> Iterator[tuple[str, Any]]:
    """Yields name and value of every metric of the task over one pass of a stream.

    The run is left as it was: looking at it does not change where it goes.   task: another than the run's own.
    """
    task = task or training.evaluated
    distribution.spread_buffers(task)
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    # Not inference_mode: FSDP2 keeps the tensors that it puts together, and training could not use them.
    with torch.random.fork_rng([training.device] if training.device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        task.metrics.to(training.device)
        task.metrics.reset()
        for batch in stream:  # type: ignore[attr-defined]
            with training.autocast():
                task.evaluate(training.place(batch))
        measured = [(name, metric.compute()) for name, metric in task.metrics.items()]
    for module, mode in modes:
        module.training = mode
    yield from measured


def _load(task: Task, tensors: dict[str, Tensor]) -> None:
    """Takes whole tensors over, sharded as the task's are."""
    present = task.state_dict()
    task.load_state_dict({name: distribution.like(t, present[name]) for name, t in tensors.items()})


def _lay_out(optimizer: Optimizer) -> None:
    """Shards and strides of an optimiser's state become those of its parameters: fused kernels read both by their place."""
    for part in parts(optimizer):
        for parameter, state in part.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim and value.shape == parameter.shape:
                    value = distribution.like(value, parameter)
                    state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
