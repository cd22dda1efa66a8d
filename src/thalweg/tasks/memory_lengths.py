"""What is a longer memory worth? A language model reads on with several of them.

Dai et al. 2019, arXiv:1901.02860.   LEE "Smaller Model"
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor, nn

from thalweg import figures
from thalweg.metrics import Perplexity
from thalweg.tasks.language_modelling import LanguageModelling, went_on
from thalweg.vocabulary import Batch


class MemoryLengths(LanguageModelling):
    """Language modelling by segments that go on, see `LanguageModelling`; measured with each of several lengths of memory.

    batch: tokens, begins.   model: its new_cache takes `memory`, the places to be remembered.
    memories: those lengths, in places; perplexity_n is measured with n, loss and perplexity with the last.
    """

    def __init__(self, model: nn.Module, alphabet: str, context: int, rows: int, memories: Sequence[int]):
        super().__init__(model, alphabet, context, rows=rows)
        self.memories, self.held = tuple(memories), dict[int, list[Tensor]]()
        self.metrics.add_metrics({f"perplexity_{memory}": Perplexity() for memory in memories})

    def evaluate(self, batch: Batch) -> None:
        for memory in self.memories:
            new = self.model.new_cache(len(batch["tokens"]), 1, memory=memory)  # type: ignore[operator]
            cache = self.held[memory] = went_on(new, self.held.get(memory, []), batch["begins"])
            surprise = self.surprise(batch["tokens"], cache=cache)
            self.metrics[f"perplexity_{memory}"].update(surprise)
        for name in ("loss", "perplexity"):
            self.metrics[name].update(surprise)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Perplexity by what is remembered; and how surprised the model is by a text."""
        points = [(memory, float(self.metrics[f"perplexity_{memory}"].compute())) for memory in self.memories]
        drawn = {
            "memory": figures.curves({"perplexity": points}, xlabel="places remembered by each layer", ylabel="perplexity")
        }
        return {**drawn, **super().figures(batch)}
