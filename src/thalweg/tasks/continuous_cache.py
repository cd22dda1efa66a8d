"""Language modelling that is measured with a memory of what was read lately, too."""

from torch import nn
from torch.nn.functional import cross_entropy, linear

from thalweg.metrics import CachedPerplexity
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.vocabulary import Batch


class ContinuousCache(LanguageModelling):
    """Language modelling of words, see `LanguageModelling`; cached_perplexity is with a cache, see `CachedPerplexity`.

    batch: tokens and mask, those of validation and tests in the order of the text.
    model: its `states` are what is known of the next word, whose logits are the products with `told`.
    """

    def __init__(self, model: nn.Module, alphabet: str, context: int):
        super().__init__(model, alphabet, context, words=True)
        self.metrics.add_metrics({"cached_perplexity": CachedPerplexity()})

    def evaluate(self, batch: Batch) -> None:
        counted, target = batch["mask"][:, 1:], batch["tokens"][:, 1:]
        states = self.model.states(batch["tokens"][:, :-1])[counted]  # type: ignore[operator]
        surprise = cross_entropy(linear(states, self.model.told).float(), target[counted], reduction="none")  # type: ignore[arg-type]
        for name in ("loss", "perplexity"):
            self.metrics[name].update(surprise)
        self.metrics["cached_perplexity"].update(-surprise, states, target[counted])
