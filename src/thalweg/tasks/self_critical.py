"""Learning for the measure itself: BLEU has no gradient, but what a model draws can be praised or blamed.   LEE Transformer

The baseline of `policy_gradient` is the reward of what the model writes greedily, so that what is better than its own best
becomes more probable.
Ranzato, Chopra, Auli, Zaremba 2015, arXiv:1511.06732; Rennie et al. 2016, "Self-critical sequence training", arXiv:1612.00563.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.decoding.search import sample_targets
from thalweg.losses import policy_gradient
from thalweg.metrics import PhraseBLEU
from thalweg.tasks.transduction import Transduction
from thalweg.vocabulary import Batch, EncoderDecoder


class SelfCritical(Transduction):
    """A transduction that goes on from a trained one and learns for BLEU, not for the next word.

    loss = - (r(y) - r(greedy)) log p(y), y drawn from p = softmax(logits / temperature);   r: the smoothed BLEU of up to four
    words in a row of one sentence, see `PhraseBLEU`.
    temperature: at 1 the mean of what is drawn becomes better, at the cost of the best, which is what one asks for.
    cross_entropy: weight of the loss of `Transduction`, which keeps the model a language model.
    The other arguments are those of `Transduction`.
    """

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int = 50, cross_entropy: float = 0.1,
                 temperature: float = 0.3):  # fmt: skip
        super().__init__(model, source_words, target_words, longest)
        self.cross_entropy, self.temperature, self.bleu = cross_entropy, temperature, PhraseBLEU(4)

    def rewards(self, written: Tensor, target: Tensor) -> Tensor:
        """The reward of each row."""
        pairs = ([self.target.decode(row).split() for row in side.tolist()] for side in (written, target))
        return torch.tensor([self.bleu.score(*pair) for pair in zip(*pairs, strict=True)], device=written.device)

    def loss(self, batch: Batch) -> tuple[Tensor, Any]:
        if not self.training:
            return super().loss(batch)
        source, target = (batch["source_tokens"], batch["source_mask"]), batch["target_tokens"][:, 1:]
        self.eval()  # what is drawn and what is praised is the model as it is used
        drawn = sample_targets(cast(EncoderDecoder, self.model), *source, bos=BOS, eos=EOS, pad=PAD, length=self.longest,
                               temperature=self.temperature)  # fmt: skip
        advantage = self.rewards(drawn, target) - self.rewards(self.write(*source, 1, self.length_penalty), target)
        self.train()
        logits = self.model(*source, pad(drawn[:, :-1], (1, 0), value=BOS))
        forced, words = super().loss(batch)
        total, count = policy_gradient(logits / self.temperature, drawn, advantage, ignore_index=PAD)
        return total + self.cross_entropy * forced * count / words, count
