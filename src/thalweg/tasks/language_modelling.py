"""Language modelling: what comes next?   LBDL 3.2, D2L 8.3"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.pairs import EOS
from thalweg.data.subwords import Subwords
from thalweg.data.text import Characters, WholeWords
from thalweg.decoding.sampling import complete, repetition_penalty, sampling
from thalweg.metrics import BitsPerByte, MeanLoss, Perplexity
from thalweg.tasks.scheduled_sampling import ScheduledSampling
from thalweg.training import Task
from thalweg.vocabulary import Batch


def went_on(new: list[Tensor], held: list[Tensor], begins: Tensor) -> list[Tensor]:
    """The state before a batch: new where a row begins, else what was held; all new where that is none, or of other rows."""
    if not held or held[0].shape != new[0].shape:
        return list(new)
    return [torch.where(begins.view(-1, *[1] * (zero.ndim - 2)), zero, was) for zero, was in zip(new, held, strict=True)]


class LanguageModelling(Task):
    """Predicts every token from those before it.   loss = - sum_t log softmax(model(x_1 ... x_{t-1}))[x_t]

    batch: tokens [batch time]; mask [batch time], True where a token is to be predicted, everywhere if absent; begins [batch],
    False where a row goes on from that of the batch before, whose state the model then keeps, without its gradient.
    alphabet: the characters, in the order of their tokens; or words, with spaces between, if a token is a word.
    tokenizer: instead, see `Subwords`, of `learn_subwords`; documents then stand side by side, an end before and behind each,
    and bits_per_byte is measured too, where the ends cost bits and are no bytes.
    context: tokens that the model reads at most.
    own: share of the tokens that it reads in training which are its own guesses, so that it learns to go on after its own
    mistakes; own_steps: batches over which the share rises, see `ScheduledSampling`.
    rows: of a training batch that may go on; the model's cache is then a list of tensors [layer batch ...].
    ValueError unless there is either an alphabet or a tokenizer.
    """

    reads = "text"

    def __init__(
        self,
        model: nn.Module,
        alphabet: str | None = None,
        context: int = 128,
        own: float = 0.0,
        own_steps: int = 1,
        rows: int = 0,
        words: bool = False,
        tokenizer: str | None = None,
    ):
        super().__init__()
        if (alphabet is None) == (tokenizer is None):
            raise ValueError("alphabet, tokenizer: expected one of them")
        for number, part in enumerate(model.new_cache(rows, 1) if rows else ()):  # type: ignore[operator]
            self.register_buffer(f"state{number}", part)  # a checkpoint must hold it
        self.rows, self.unbroken = rows, list[Tensor]()  # the state of training, and that of evaluation
        self.scheduled = ScheduledSampling(own, own_steps) if own else None
        self.model, self.context = model, context
        self.characters: Characters | WholeWords | Subwords
        self.end: int | None = None  # the token after which a text is over
        self.metrics = MetricCollection({"loss": MeanLoss(), "perplexity": Perplexity()}, compute_groups=False)
        if alphabet is not None:
            self.characters = (WholeWords if words else Characters)(alphabet)
        elif tokenizer is not None:
            self.characters, self.end = Subwords(tokenizer), EOS
            self.register_buffer("sizes", self.characters.sizes(), persistent=False)
            self.metrics.add_metrics({"bits_per_byte": BitsPerByte()})

    def encode(self, text: str) -> Tensor:
        """The tokens of a text; of sub-words, between two ends.   [time]"""
        tokens = self.characters.encode(text)
        return tokens if self.end is None else pad(tokens, (1, 0), value=self.end)

    def prompt(self, text: str) -> Tensor:
        """The tokens of a text that is to be gone on with.   [time]   ValueError if there is none."""
        tokens = self.encode(text)[: None if self.end is None else -1]
        if not len(tokens):
            raise ValueError("prompt: empty, expected a text to go on from")
        return tokens

    def surprise(self, tokens: Tensor, read: Tensor | None = None, cache: Any = None) -> Tensor:
        """-log p, in nats, of every token but the first.   tokens: [batch time] -> [batch time-1]

        read: what the model reads in place of the tokens before.   cache: what it has read before these.
        """
        target, read = tokens[:, 1:], tokens[:, :-1] if read is None else read
        if hasattr(self.model, "surprise"):  # it knows a shorter way than over all words
            return self.model.surprise(read, target, cache)  # type: ignore[operator]
        logits = self.model(read) if cache is None else self.model(read, cache)
        return cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none").view_as(target)

    @contextmanager
    def going_on(self, batch: Batch) -> Iterator[list[Tensor] | None]:
        """The state from which a batch is read, and which is then kept for the next."""
        if "begins" not in batch:
            yield None
            return
        new = self.model.new_cache(len(batch["begins"]), 1)  # type: ignore[operator]
        held = [getattr(self, f"state{number}") for number in range(len(new))] if self.training else self.unbroken
        state = went_on(new, held, batch["begins"])
        yield state
        after = [part.detach().to(zero) for part, zero in zip(state, new, strict=True)]
        if self.training:
            for number, part in enumerate(after):
                getattr(self, f"state{number}").copy_(part)
        else:
            self.unbroken = after

    @torch.no_grad()
    def mixed(self, tokens: Tensor) -> Tensor:
        """The tokens as they are read in training: a share of them the model's own guesses, if that is asked.   [batch time]"""
        return tokens if self.scheduled is None else self.scheduled(tokens, self.model(tokens))

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        tokens = batch["tokens"]
        read = self.mixed(tokens[:, :-1]) if self.training else None
        with self.going_on(batch) as cache:
            surprise = self.surprise(tokens, read, cache)
        if "mask" not in batch:
            return surprise.sum(), surprise.numel()
        predicted = batch["mask"][:, 1:]
        return (surprise * predicted).sum(), predicted.sum()

    def evaluate(self, batch: Batch) -> None:
        with self.going_on(batch) as cache:
            surprise = self.surprise(batch["tokens"], cache=cache)
        counted = batch["mask"][:, 1:] if "mask" in batch else torch.ones_like(surprise, dtype=torch.bool)
        for name in ("loss", "perplexity"):
            self.metrics[name].update(surprise[counted])
        if self.end is not None:
            self.metrics["bits_per_byte"].update(surprise[counted], self.sizes[batch["tokens"][:, 1:][counted]])  # type: ignore[index]

    def predict(
        self,
        inputs: dict[str, list[str]],
        *,
        length: int = 300,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        penalty: float = 1.0,
        seed: int = 0,
    ) -> dict[str, list[str]]:
        """text: each text and how it goes on.   inputs: text, of characters of the alphabet, or words, at least one; or any

        length: tokens to add.   temperature, top_k, top_p, min_p: see `sampling`.   penalty: see `repetition_penalty`.
        seed: the same gives the same text.
        """
        device = next(self.model.parameters()).device
        prompts = [self.prompt(text).to(device) for text in inputs["text"]]
        random = Generator(device).manual_seed(seed)
        choose = sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, generator=random)
        rules = [repetition_penalty(penalty)] if penalty != 1 else []
        texts = complete(self.model, prompts, length, choose, context=self.context, rules=rules)  # type: ignore[arg-type]
        first = 0 if self.end is None else 1
        return {"text": [self.characters.decode(tokens[first:].tolist()) for tokens in texts]}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """How surprised the model is by each token of a real text, and of one it writes itself."""
        real = batch["tokens"][0]
        given = max(1, min(self.context, len(real)) // 4)
        text = self.predict({"text": [self.characters.decode(real[:given].tolist())]}, length=len(real) - given)["text"][0]
        drawn = {}
        for name, tokens in {"real text": real, "own text": self.encode(text).to(real)}.items():
            pieces, surprise = self.characters.pieces(tokens[1:].tolist()), self.surprise(tokens[None])[0]
            letters = surprise.repeat_interleave(torch.tensor([*map(len, pieces)], device=surprise.device))
            drawn[name] = figures.coloured_text("".join(pieces), letters, "surprise, nats")
        return drawn
