"""Translation by fertility: how many words each word of the source becomes is decided first, then all are written at once.

Gu, Bradbury, Xiong, Li, Socher 2017, arXiv:1711.02281.   LEE NAT
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from thalweg.data.alignment import fertilities
from thalweg.data.pairs import BOS, PAD, Pairs
from thalweg.layers.rows import repeated
from thalweg.metrics import MeanLoss, PhraseBLEU, Share
from thalweg.tasks.non_autoregressive import ParallelTransduction, unframed
from thalweg.vocabulary import Batch


class FertilePairs(Pairs):
    """Pairs of sentences with the fertility of each word of the source.   aligned: place of the source of each target word.

    -> what `Pairs` gives, and fertility [batch read].
    """

    def __init__(
        self, source: list[Tensor], target: list[Tensor], aligned: list[Tensor], batch_size: int, *, shuffle: bool = False
    ):
        super().__init__(source, target, batch_size, shuffle=shuffle)
        self.aligned = aligned

    def fetch(self, indices: Tensor) -> Batch:
        batch = super().fetch(indices)
        aligned = pad_sequence([self.aligned[index] for index in indices.tolist()], batch_first=True, padding_value=-1)
        return {**batch, "fertility": fertilities(aligned, aligned >= 0, batch["source_tokens"].shape[1])}


@torch.inference_mode()
def looked_at(teacher: Any, source: list[Tensor], target: list[Tensor], batch_size: int = 250) -> list[Tensor]:
    """For every word of a target the place of the source that a teacher looks at most before it writes it.

    teacher: an encoder-decoder with `alignment`.   source, target: tokens, the targets without <bos> and <eos>.
    """
    found: list[Tensor] = []
    for start in range(0, len(source), batch_size):
        read = pad_sequence(source[start : start + batch_size], batch_first=True, padding_value=PAD)
        begun = [torch.cat([torch.tensor([BOS]), sentence[:-1]]) for sentence in target[start : start + batch_size]]
        looks = teacher.alignment(read, read != PAD, pad_sequence(begun, batch_first=True, padding_value=PAD))
        found += [row[: len(sentence)] for row, sentence in zip(looks.argmax(-1), begun, strict=True)]
    return found


class Fertility(ParallelTransduction):
    """Learns the fertilities that an aligner found, and the words that come of the source repeated so.

    loss = - sum_t log p(y_t | x, f) - sum_s log p(f_s | x).   batch: `Transductions` and fertility [batch read], which sums to
    the number of words.   model: a `FertilityTransformer`.
    drafts: the likeliest fertilities, then others drawn from p(f | x), always the same: noisy parallel decoding.
    metrics: fertility_error, the mean of |likeliest - f| over words of the source.
    """

    ways: Mapping[str, dict[str, int]] = {"bleu_4_drafts": {"drafts": 4}, "bleu_16_drafts": {"drafts": 16}}

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int, teacher: nn.Module | None = None):
        super().__init__(model, source_words, target_words, longest, teacher)
        self.metrics.add_metrics({"fertility_error": MeanLoss()})

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, real = unframed(batch)
        source_mask, largest = batch["source_mask"], self.model.fertility.out_features - 1
        fertility = batch["fertility"]
        logits, mask, said = self.model(batch["source_tokens"], source_mask, fertility)
        total = cross_entropy(logits[mask].float(), words[real], reduction="sum")
        likely = cross_entropy(said[source_mask].float(), fertility[source_mask].clamp(max=largest), reduction="sum")
        return total + likely, mask.sum()

    def planned(self, said: Tensor, source_mask: Tensor, drafts: int) -> Tensor:
        """Fertilities: the likeliest, and others drawn.   said: logits [batch read fertility] -> [batch draft read]"""
        plans = said.argmax(-1)[:, None]
        if drafts > 1:
            share = said.float().softmax(-1)[:, None]
            random = torch.Generator(said.device).manual_seed(0)
            clocks = share.new_empty(share.shape[2], drafts - 1, share.shape[3]).exponential_(generator=random).transpose(0, 1)
            plans = torch.cat([plans, (share / clocks).argmax(-1)], 1)  # which rings first is a draw
        return self.bounded(plans * source_mask[:, None])

    def bounded(self, plans: Tensor) -> Tensor:
        """At least one word, and at most `longest`."""
        plans[..., 0] += plans.sum(-1) == 0
        before = plans.cumsum(-1) - plans
        return torch.minimum(plans, (self.longest - before).clamp(min=0))

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, drafts: int = 1) -> Tensor:
        memory = self.model.network.encode(source_tokens, source_mask)
        said = self.model.fertility(memory.states)
        plans = self.planned(said, source_mask, drafts)
        copies, mask = repeated(source_tokens.repeat_interleave(plans.shape[1], 0), plans.flatten(0, 1), PAD)
        score, tokens = self.follow(copies, mask, memory)
        mean = score.sum(1) / mask.sum(1)
        shape = plans.shape[:2]
        return self.best(source_tokens, source_mask, tokens.unflatten(0, shape), mean.unflatten(0, shape))

    def follow(self, copies: Tensor, mask: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        """The likeliest words, given the source repeated, and the log p of each."""
        network = self.model.network
        best, words = network.words(network.decode(copies, mask, memory, copied=True)).float().log_softmax(-1).max(-1)
        return best.masked_fill(~mask, 0), words.masked_fill(~mask, PAD)

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        said = self.model.fertility(self.model.network.encode(batch["source_tokens"], batch["source_mask"]).states)
        error = (said.argmax(-1) - batch["fertility"]).abs()
        self.metrics["fertility_error"].update(error[batch["source_mask"]].float())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, drafts: int = 1) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text   drafts: fertilities that are tried"""
        return self.translate(inputs["text"], drafts=drafts)


class FertilityByReward(Fertility):
    """After Fertility has converged: the fertilities learn what makes good translations, whatever the aligner said.

    REINFORCE: loss = - (R(f) - R(f')) log p(f | x), f drawn from p(f | x), f' the likeliest, R how good the translation is that
    comes of it (`PhraseBLEU` of two words). Nothing but the head of the fertilities learns.
    model: a `FertilityTransformer` that has converged.   metrics: reward, the mean R of what is drawn.   Gu et al. 2017, 5.
    """

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int, teacher: nn.Module | None = None):
        super().__init__(model, source_words, target_words, longest, teacher)
        self.model.requires_grad_(False)
        self.model.fertility.requires_grad_(True)
        self.metrics.add_metrics({"reward": Share()})
        self.judge = PhraseBLEU()

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.model.eval()  # what is rewarded is the network as it translates, without dropout
        log_p, drawn, likeliest = self.tried(batch)
        return -((drawn - likeliest) * log_p).sum(), torch.tensor(len(drawn))

    def tried(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """log p of drawn fertilities, their rewards, and those of the likeliest.   [batch] each"""
        source_mask = batch["source_mask"]
        memory = self.model.network.encode(batch["source_tokens"], source_mask)
        choice = Categorical(logits=self.model.fertility(memory.states).float())
        references = [self.target.decode(row) for row in batch["target_tokens"].tolist()]
        drawn = choice.sample()
        rewards = []
        for plan in (drawn, choice.logits.argmax(-1)):
            copies, mask = repeated(batch["source_tokens"], self.bounded(plan * source_mask), PAD)
            words = self.follow(copies, mask, memory)[1].tolist()
            pairs = zip(words, references, strict=True)
            found = [self.judge.score(self.target.decode(row).split(), reference.split()) for row, reference in pairs]
            rewards.append(torch.tensor(found, device=drawn.device))
        return (choice.log_prob(drawn) * source_mask).sum(1), rewards[0], rewards[1]

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        self.metrics["reward"].update(self.tried(batch)[1])
