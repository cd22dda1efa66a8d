"""Learning for the measure itself: BLEU has no gradient, but what a model draws can be praised or blamed.   LEE Transformer

Of each source several targets are drawn; those better than their mean become more probable, those worse less.
Ranzato, Chopra, Auli, Zaremba 2015, arXiv:1511.06732; Shen et al. 2015, "Minimum risk training for neural machine translation",
arXiv:1512.02433, the mean over what is drawn; Wu et al. 2016, arXiv:1609.08144, the reward.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.decoding.search import sample_targets
from thalweg.losses import policy_gradient
from thalweg.metrics import gleu
from thalweg.tasks.transduction import Transduction
from thalweg.vocabulary import Batch, EncoderDecoder


class MinimumRisk(Transduction):
    """A transduction that goes on from a trained one and learns for BLEU, not for the next word.

    loss = - sum_k q_k r_k, of the distinct ones of `draws` targets y_k drawn from softmax(logits / temperature);
    q = softmax_k(log p(y_k));   r: see `gleu`.   Its gradient is that of REINFORCE with the mean as the baseline,
    - sum_k q_k (r_k - sum_j q_j r_j) grad log p(y_k).
    temperature: below 1, since the best is what is asked for, and not what a model might say now and then.
    cross_entropy: weight of the loss of `Transduction`, which keeps the model a language model.
    The other arguments are those of `Transduction`.   ValueError for fewer than 2 draws, of which none is better than the mean.
    """

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int = 50, cross_entropy: float = 0.1,
                 temperature: float = 0.5, draws: int = 8):  # fmt: skip
        super().__init__(model, source_words, target_words, longest)
        if draws < 2:
            raise ValueError(f"draws={draws}: expected at least 2")
        self.cross_entropy, self.temperature, self.draws = cross_entropy, temperature, draws

    def rewards(self, written: Tensor, target: Tensor) -> Tensor:
        """Of each row, `draws` of which are written for each target."""
        right = [self.target.decode(row).split() for row in target.tolist()]
        return torch.tensor([gleu(self.target.decode(row).split(), right[place // self.draws])
                             for place, row in enumerate(written.tolist())], device=written.device)  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, Any]:
        if not self.training:
            return super().loss(batch)
        source = [batch[name].repeat_interleave(self.draws, 0) for name in ("source_tokens", "source_mask")]
        self.eval()  # what is drawn and what is praised is the model as it is used
        drawn = sample_targets(cast(EncoderDecoder, self.model), *source, bos=BOS, eos=EOS, pad=PAD, length=self.longest,
                               temperature=self.temperature)  # fmt: skip
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers have no gradient but in training
            logits = self.model(*source, pad(drawn[:, :-1], (1, 0), value=BOS))
        self.train()
        q = self.shares(logits, drawn)
        r = self.rewards(drawn, batch["target_tokens"][:, 1:]).view_as(q)
        advantage = q * (r - (q * r).sum(1, keepdim=True))
        total, _ = policy_gradient(logits, drawn, advantage.flatten(), ignore_index=PAD)
        forced, words = super().loss(batch)
        return total + self.cross_entropy * forced * len(q) / words, len(q)

    @torch.no_grad()
    def shares(self, logits: Tensor, drawn: Tensor) -> Tensor:
        """q, 0 for what was drawn before.   [batch draws]"""
        surprise = cross_entropy(logits.float().mT, drawn, ignore_index=PAD, reduction="none").sum(1).view(-1, self.draws)
        rows = drawn.view(len(surprise), self.draws, -1)
        again = (rows[:, :, None] == rows[:, None]).all(-1).tril(-1).any(-1)
        return (-surprise).masked_fill(again, -torch.inf).softmax(1)
