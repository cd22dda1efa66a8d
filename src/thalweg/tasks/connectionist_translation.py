"""Translation by CTC: a row longer than any target is written at once, in which blanks and repeated words do not count.

No length needs to be known, and no word needs to know where exactly it stands.
Libovický, Helcl 2018, arXiv:1811.04719.   LEE NAT
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

from thalweg.data.pairs import PAD
from thalweg.decoding.parallel import collapse
from thalweg.layers.rows import repeated
from thalweg.tasks.non_autoregressive import ParallelTransduction, unframed
from thalweg.vocabulary import Batch


class ConnectionistTranslation(ParallelTransduction):
    """Reads every word of the source `copies` times, and says at each a word or nothing (<pad> is CTC's blank).

    loss = - log sum_{paths that collapse to y} prod_t p(path_t | x), each path as likely as if its places were independent.
    A target with more words than places has no path, and counts nothing.
    model: a `ParallelTransformer`.   ValueError if copies < 1.   Graves et al. 2006.
    """

    def __init__(
        self,
        model: nn.Module,
        source_words: str,
        target_words: str,
        longest: int,
        teacher: nn.Module | None = None,
        copies: int = 3,
    ):
        if copies < 1:
            raise ValueError(f"copies={copies}: expected at least 1")
        super().__init__(model, source_words, target_words, longest, teacher)
        self.copies = copies

    def said(self, source_tokens: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """log p of the words at every place, and which places there are.   [batch time vocab], [batch time]"""
        memory = self.model.encode(source_tokens, source_mask)  # type: ignore[operator]
        tokens, mask = repeated(source_tokens, self.copies * source_mask.long(), PAD)
        states = self.model.decode(tokens, mask, memory, copied=True)  # type: ignore[operator]
        return self.model.words(states).float().log_softmax(-1), mask  # type: ignore[operator]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, real = unframed(batch)
        said, mask = self.said(batch["source_tokens"], batch["source_mask"])
        total = ctc_loss(said.transpose(0, 1), words, mask.sum(1), real.sum(1), blank=PAD, reduction="sum", zero_infinity=True)
        return total, real.sum()

    def write(self, source_tokens: Tensor, source_mask: Tensor, **how: int) -> Tensor:
        said, mask = self.said(source_tokens, source_mask)
        return collapse(said.argmax(-1), mask, blank=PAD, pad=PAD)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text"""
        return self.translate(inputs["text"])
