"""Learning in context: the weights stay as they are, and what is to be learned stands in the prompt.   LBDL 7.1"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.analogies import best, words
from thalweg.metrics import ErrorByPlace, MeanLoss, Share
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.vocabulary import Batch


class InContext(LanguageModelling):
    """Says the answer of each sign of a text, by the pairs of sign and answer before it alone.

    loss = - sum_n log softmax(model(sign_1, answer_1 ... sign_n))[answer_n]
    batch: tokens, mask, see `maps`.   shots: examples before the last sign of a text.   signs, answers: their numbers.
    metrics: zero_shot, one_shot and few_shot, the shares that are right after none, one and all of the examples;
    wrong_by_shots, the share that is wrong after each number of them.   Brown et al. 2020, arXiv:2005.14165.
    """

    def __init__(self, model: nn.Module, shots: int, signs: int = 8, answers: int = 8):
        super().__init__(model, words(signs, answers), context=2 * shots + 2, words=True)
        self.shots, self.signs, self.answers = shots, signs, answers
        shares = {name: Share() for name in ("zero_shot", "one_shot", "few_shot")}
        self.metrics = MetricCollection({"loss": MeanLoss(), **shares, "wrong_by_shots": ErrorByPlace(shots + 1)},
                                        compute_groups=False)  # fmt: skip

    def logits(self, tokens: Tensor) -> Tensor:
        """Of every answer, behind its sign.   [batch 2n] -> [batch n vocab]"""
        logits = self.model(tokens[:, :-1])[:, ::2]
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        target = batch["tokens"][:, 1::2].flatten()
        return cross_entropy(self.logits(batch["tokens"]).flatten(0, 1), target, reduction="sum"), len(target)

    def evaluate(self, batch: Batch) -> None:
        logits, target = self.logits(batch["tokens"]), batch["tokens"][:, 1::2]
        wrong = logits.argmax(-1) != target
        self.metrics["loss"].update(cross_entropy(logits.mT, target, reduction="none"))
        for name, place in (("zero_shot", 0), ("one_shot", 1), ("few_shot", -1)):
            self.metrics[name].update((~wrong[:, place]).float())
        self.metrics["wrong_by_shots"].update(wrong, torch.ones_like(wrong))

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:  # type: ignore[override]
        """text: the answer.   inputs: text, examples and then a sign, such as "a 3 f 7 a"

        ValueError if a text is empty or too long.
        """
        said = []
        for text in inputs["text"]:
            prompt = self.prompt(text)
            if len(prompt) >= self.context:
                raise ValueError(f"text: {len(prompt)} words, expected at most {self.context - 1}")
            logits = self.model(prompt[None].to(next(self.model.parameters()).device))[0, -1]
            said.append(self.characters.decode([int(logits.argmax())]))
        return {"text": said}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The share of answers that is right after so many examples, and what can be: who was shown a sign knows it."""
        right = (1 - self.metrics["wrong_by_shots"].compute()).tolist()
        lines = {
            "the model": [*enumerate(right)],
            "the best that is possible": [(n, best(n, self.signs, self.answers)) for n in range(len(right))],
            "chance": [(n, 1 / self.answers) for n in range(len(right))],
        }
        return {"accuracy by shots": figures.curves(lines, xlabel="examples in the prompt", ylabel="share that is right")}
