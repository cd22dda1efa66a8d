"""Sentences learn their vectors by foretelling their neighbours, word by word.   LEE BERT"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from thalweg.models.sequence.skip_thought import SkipThought
from thalweg.tasks.sentence_vectors import SentenceVectors
from thalweg.vocabulary import Batch


class SkipThoughts(SentenceVectors):
    """The vector of a sentence is what the sentences before and after it are written from.

    loss = - sum_t log p(y_t | y_1 ... y_{t-1}, v) over the words of both neighbours, by their number.
    batch: tokens, before_tokens, after_tokens and their masks [batch time], each from [CLS] to [SEP].   model: `SkipThought`.
    tokenizer, longest: see `SentenceVectors`, as are mrr and recall_at_1: here the sentence after each is looked for among
    all those, by the cosine of their vectors, which nobody taught to be near each other.
    Kiros et al. 2015, arXiv:1506.06726.
    """

    model: SkipThought

    def __init__(self, model: SkipThought, tokenizer: str, longest: int = 32):
        super().__init__(model, tokenizer, longest)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        v = self.model.encode(tokens, mask)
        return normalize(v.to(torch.promote_types(v.dtype, torch.float32)), dim=-1)

    def terms(self, batch: Batch) -> Tensor:
        """- log p of each word of both neighbours, those of the one before first."""
        targets = [batch["before_tokens"], batch["after_tokens"]]
        logits = self.model(batch["tokens"], batch["mask"], *(target[:, :-1] for target in targets))
        found = []
        for said, target, mask in zip(logits, targets, (batch["before_mask"], batch["after_mask"]), strict=True):
            real = mask[:, 1:]
            said = said[real].to(torch.promote_types(said.dtype, torch.float32))
            found.append(cross_entropy(said, target[:, 1:][real], reduction="none"))
        return torch.cat(found)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        terms = self.terms(batch)
        return terms.sum(), len(terms)

    def evaluate(self, batch: Batch) -> None:
        self.metrics["loss"].update(self.terms(batch))
        vectors = [self.embed(batch[f"{side}tokens"], batch[f"{side}mask"]) for side in ("", "after_")]
        for name in ("mrr", "recall_at_1"):
            self.metrics[name].update(*vectors)
