"""Text to text: one encoder-decoder learns several tasks, each named at the begin of what it reads.   LEE BERT"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.metrics import MeanLoss, SacreBLEU, Share, gleu
from thalweg.tasks.transduction import Transduction
from thalweg.vocabulary import Batch


class TextToText(Transduction):
    """Writes what a text becomes by the task that its first words name; a class too is written, as a word.

    loss: as of `Transduction`.   batch: task [batch] too, the number of each pair's.   tokenizer: see `Subwords`.
    tasks: what each is called.   answers: what may be written, of each; of a task with answers accuracy_TASK is the share of
    texts that are written as they should be, of one without (any text) it is sacrebleu_TASK. TASK is the first word.
    score: the mean over all texts of 1 for a right answer, of `gleu` for any text. The best weights are those of the best
    score: the loss rises with the certainty of what is wrong, while more and more is right.
    beam, length_penalty: see `beam_search`.   Raffel et al. 2019, arXiv:1910.10683.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: str,
        tasks: Sequence[str],
        answers: Sequence[Sequence[str]],
        longest: int = 50,
        beam: int = 1,
        length_penalty: float = 0.75,
    ):
        super().__init__(model, longest=longest, tokenizer=tokenizer, beam=beam, length_penalty=length_penalty)
        measure: dict[str, Any] = {"loss": MeanLoss(), "score": Share()}
        self.named = [f"{'accuracy' if some else 'sacrebleu'}_{task.split()[0]}"
                      for task, some in zip(tasks, answers, strict=True)]  # fmt: skip
        measure |= {name: Share() if name.startswith("accuracy") else SacreBLEU() for name in self.named}
        self.metrics = MetricCollection(measure, compute_groups=False)

    def evaluate(self, batch: Batch) -> None:
        target, real = batch["target_tokens"][:, 1:], batch["target_mask"][:, 1:]
        logits = self.model(batch["source_tokens"], batch["source_mask"], batch["target_tokens"][:, :-1]).float()
        self.metrics["loss"].update(cross_entropy(logits[real], target[real], reduction="none"))
        written = self.write(batch["source_tokens"], batch["source_mask"], self.beam, self.length_penalty)
        said, true = ([self.target.decode(row) for row in side.tolist()] for side in (written, target))
        for text, wanted, number in zip(said, true, batch["task"].tolist(), strict=True):
            name = self.named[number]
            if name.startswith("accuracy"):
                right = float(text == wanted)
                self.metrics[name].update(right)
            else:
                right = gleu(text.split(), wanted.split())
                self.metrics[name].update([text], [[wanted]])
            self.metrics["score"].update(right)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """How good it is at each task, in shares of what can be had; sacreBLEU ends at 100."""
        found = [float(self.metrics[name].compute()) / (100 if name.startswith("sacrebleu") else 1) for name in self.named]
        return {"tasks": figures.bars(self.named, {"measured": found})}
