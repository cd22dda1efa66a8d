"""Sequence transduction: a sentence in, another out, such as its translation.   D2L 9.7, 10.4, LEE Transformer"""

from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import BLEUScore

from thalweg import figures
from thalweg.data.pairs import BOS, EOS, PAD, UNK, Words
from thalweg.data.subwords import Subwords
from thalweg.decoding.search import beam_search
from thalweg.losses import guided_attention
from thalweg.metrics import ROUGE, BracketF1, ErrorByPlace, MeanLoss, PhraseBLEU, SacreBLEU
from thalweg.tasks.scheduled_sampling import ScheduledSampling
from thalweg.training import Task
from thalweg.vocabulary import Batch, EncoderDecoder


class Transduction(Task):
    """Predicts every token of a target from its source and the true tokens before it (teacher forcing).

    loss = - sum_t log softmax(model(x, y_1 ... y_{t-1}))[y_t]; all t at once, since the truth does not wait for a guess.
    What it writes itself it reads itself: exposure_bias is by how much more often a token is wrong then, at the same place,
    forced_error and free_error are both shares by place.
    batch: source_tokens, source_mask [batch read], target_tokens, target_mask [batch time], a target from <bos> to <eos>.
    model: an encoder-decoder.   source_words, target_words: see `Words`; or, for both, tokenizer: see `Subwords`.
    longest: tokens that it writes at most.   label_smoothing: share of the target that is for all tokens alike, in training.
    own: share of the tokens that it reads in training which are its own guesses, so that it learns to go on after its own
    mistakes; own_steps: batches over which the share rises, see `ScheduledSampling`.
    strangers: so many unknown words of a source have tokens of their own, which a model that copies can write; there is one
    vocabulary then, and a word that has no token is never written and is no target.
    guided: weight of `guided_attention`, in training, for where both sides say the same in the same order.
    beam, length_penalty: of the translations that are measured and given, see `beam_search`.
    brackets: targets are written trees, see `thalweg.data.grammar`, and bracket_f1 is of their phrases.
    summaries: targets are summaries, and rouge1, rouge2 and rougeL are measured, see `ROUGE`; the batch has lead [batch],
    tokens of the first sentence of each source, and lead_rouge1 ... are of that: who summarises has to be better.
    metrics: bleu is of words in lower case and against one reference (sacreBLEU's tokenisation `none`); of sub-words there
    is sacrebleu, of texts as they are. accuracy is that of the next token after the true ones.
    ValueError unless there are either words or a tokenizer, of two vocabularies with strangers, or if a model without
    attention is to be guided.
    """

    reads = "text"

    def __init__(
        self,
        model: nn.Module,
        source_words: str | None = None,
        target_words: str | None = None,
        longest: int = 50,
        own: float = 0.0,
        own_steps: int = 1,
        tokenizer: str | None = None,
        label_smoothing: float = 0.0,
        beam: int = 1,
        length_penalty: float = 0.75,
        strangers: int = 0,
        guided: float = 0.0,
        brackets: bool = False,
        summaries: bool = False,
    ):
        super().__init__()
        if (source_words is None, target_words is None) != (tokenizer is not None,) * 2:
            raise ValueError("source_words, target_words, tokenizer: expected both of the first, or the last")
        if strangers and (source_words is None or source_words != target_words):
            raise ValueError(f"strangers={strangers}: expected source_words and target_words to be the same")
        if guided and not hasattr(model, "alignment"):
            raise ValueError(f"guided={guided}: {type(model).__name__} has no attention to guide")
        self.scheduled = ScheduledSampling(own, own_steps) if own else None
        self.model, self.longest, self.label_smoothing = model, longest, label_smoothing
        self.beam, self.length_penalty, self.strangers, self.guided = beam, length_penalty, strangers, guided
        self.summaries = summaries
        self.source: Words | Subwords
        self.target: Words | Subwords
        if source_words is not None and target_words is not None:
            self.source, self.target = Words(source_words, strangers), Words(target_words, strangers)
        elif tokenizer is not None:
            self.source = self.target = Subwords(tokenizer)
        alike = [prefix + kind for prefix in ("", "lead_") for kind in ROUGE.kinds] if summaries else []
        self.metrics = MetricCollection(
            {
                "loss": MeanLoss(),
                "accuracy": MulticlassAccuracy(len(self.target), average="micro"),
                **({"bleu": BLEUScore(), "phrase_bleu": PhraseBLEU()} if tokenizer is None else {"sacrebleu": SacreBLEU()}),
                **({"bracket_f1": BracketF1()} if brackets else {}),
                **{name: ROUGE(name.removeprefix("lead_")) for name in alike},
                "exposure_bias": MeanLoss(),
                "forced_error": ErrorByPlace(longest),
                "free_error": ErrorByPlace(longest),
            },
            compute_groups=False,
        )

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        source, target = (batch["source_tokens"], batch["source_mask"]), batch["target_tokens"]
        read = target[:, :-1]
        if self.scheduled is not None and self.training:
            with torch.no_grad():
                read = self.scheduled(read, self.model(*source, read))
        logits = self.model(*source, read)
        real = self.real(batch)
        total = cross_entropy(logits.flatten(0, 1).float(), target[:, 1:].masked_fill(~real, PAD).flatten(), ignore_index=PAD,
                              reduction="sum", label_smoothing=self.label_smoothing)  # fmt: skip
        if self.guided and self.training:
            looked = self.model.alignment(*source, read)  # type: ignore[operator]
            total = total + self.guided * guided_attention(looked, batch["target_mask"][:, 1:], batch["source_mask"])[0]
        return total, real.sum()

    def real(self, batch: Batch) -> Tensor:
        """Where there is a token to be predicted.   [batch time-1]"""
        real = batch["target_mask"][:, 1:]
        return real & (batch["target_tokens"][:, 1:] != UNK) if self.strangers else real

    def evaluate(self, batch: Batch) -> None:
        target, real = batch["target_tokens"][:, 1:], self.real(batch)
        logits = self.model(batch["source_tokens"], batch["source_mask"], batch["target_tokens"][:, :-1]).float()
        written = self.write(batch["source_tokens"], batch["source_mask"], self.beam, self.length_penalty)
        forced = logits.argmax(-1) != target
        free = pad(written, (0, target.shape[1] - written.shape[1]), value=PAD) != target
        self.metrics["loss"].update(cross_entropy(logits[real], target[real], reduction="none"))
        self.metrics["accuracy"].update(logits[real], target[real])
        self.metrics["exposure_bias"].update(free[real].float() - forced[real].float())
        self.metrics["forced_error"].update(forced, real)
        self.metrics["free_error"].update(free, real)
        translations, references = ([self.target.decode(row) for row in side.tolist()] for side in (written, target))
        for name in {"bleu", "sacrebleu"} & {*self.metrics}:
            self.metrics[name].update(translations, [[reference] for reference in references])
        for name in {"phrase_bleu", "bracket_f1"} & {*self.metrics}:
            self.metrics[name].update(translations, references)
        if self.summaries:
            rows = zip(batch["source_tokens"].tolist(), batch["lead"].tolist(), strict=True)
            leads = [self.source.decode(row[:length]) for row, length in rows]
            for kind in ROUGE.kinds:
                self.metrics[kind].update(translations, references)
                self.metrics[f"lead_{kind}"].update(leads, references)

    def write(self, source_tokens: Tensor, source_mask: Tensor, beam: int, length_penalty: float) -> Tensor:
        """The best targets that a beam search finds.   [batch read] -> [batch time], padding after <eos>"""
        model = cast(EncoderDecoder, self.model)
        found, _ = beam_search(model, source_tokens, source_mask, bos=BOS, eos=EOS, pad=PAD, beam=beam, length=self.longest,
                               length_penalty=length_penalty, forbidden=[UNK] if self.strangers else [])  # fmt: skip
        return found[:, 0]

    @torch.inference_mode()
    def predict(
        self, inputs: dict[str, list[str]], *, beam: int = 4, length_penalty: float = 0.75, show_alignment: bool = False
    ) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text

        beam, length_penalty: see `beam_search`.   show_alignment: alignment too, [time read] a text: where in the source the
        model looked for each token; pieces, the source's and the target's.   ValueError if a model without attention is asked.
        """
        if show_alignment and not hasattr(self.model, "alignment"):
            raise ValueError(f"show_alignment: {type(self.model).__name__} does not look back at the words of the source")
        device = next(self.model.parameters()).device
        readers, writers = [self.source] * len(inputs["text"]), [self.target] * len(inputs["text"])
        if isinstance(self.source, Words) and self.strangers:
            readers = writers = [self.source.hearing(text) for text in inputs["text"]]
        sources = [reader.encode(text) for reader, text in zip(readers, inputs["text"], strict=True)]
        tokens = pad_sequence(sources, batch_first=True, padding_value=PAD).to(device)
        written = self.write(tokens, tokens != PAD, beam, length_penalty)
        texts = [writer.decode(row) for writer, row in zip(writers, written.tolist(), strict=True)]
        predicted: dict[str, Any] = {"text": texts}
        if show_alignment:
            read = torch.cat([torch.full_like(written[:, :1], BOS), written[:, :-1]], 1)
            looked = self.model.alignment(tokens, tokens != PAD, read)  # type: ignore[operator]
            targets = [row[row != PAD] for row in written]
            predicted["alignment"] = [one[: len(target), : len(source)]
                                      for one, source, target in zip(looked, sources, targets, strict=True)]  # fmt: skip
            sides = zip(readers, sources, writers, targets, strict=True)
            predicted["pieces"] = [[reader.pieces(source.tolist()), writer.pieces(target.tolist())]
                                   for reader, source, writer, target in sides]  # fmt: skip
        return predicted

    def draw(self, inputs: dict[str, list[str]], predicted: dict[str, Any]) -> Figure | None:
        return figures.alignment(predicted["alignment"][0], *predicted["pieces"][0]) if "alignment" in predicted else None

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """How errors grow from place to place, forced and free; where the model looks, if it does; a few summaries."""
        errors = {
            "after the truth": self.metrics["forced_error"].compute(),
            "after its own words": self.metrics["free_error"].compute(),
        }
        lines = {name: list(enumerate(error.tolist(), 1)) for name, error in errors.items()}
        drawn = {"error by place": figures.curves(lines, xlabel="place in the target", ylabel="share of wrong words")}
        if hasattr(self.model, "alignment"):
            longest = int(batch["source_mask"].sum(1).argmax())
            asked = {"text": [self.source.decode(batch["source_tokens"][longest].tolist())]}
            drawn["alignment"] = self.draw(asked, self.predict(asked, show_alignment=True))  # type: ignore[assignment]
        if self.summaries:
            written = self.write(batch["source_tokens"][:8], batch["source_mask"][:8], self.beam, self.length_penalty)
            said, right = ([self.target.decode(row) for row in side.tolist()] for side in (written, batch["target_tokens"]))
            rows = [(text, f"of a person: {wanted}", "tab:blue") for text, wanted in zip(said, right, strict=False)]
            drawn["summaries"] = figures.texts(rows)
        return drawn
