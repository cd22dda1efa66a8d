"""Small models of film reviews beside a pre-trained encoder: how right, how large, and how long one sentence takes.

counts, textcnn, birnn     the models of the recipe sentiment, on the words of SST-2
minilm                     the encoder of 6 layers that sst2-encoder fine-tunes, on as many pieces of words as the public one
Each reads the same sentences one by one, as they are typed, in fp32; weights are random, which takes as long as trained ones.
accuracy: of the test sentences, of the run in results/ that was best on validation. Those of textcnn and birnn may start from
word vectors; what is counted and timed here learns from nothing.
"""

import json
import time
from functools import partial

import compare

from thalweg.build import build
from thalweg.catalogue import runs
from thalweg.data.classified import sst2
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.language.bert import minilm
from thalweg.models.language.fine_tuned import OfText
from thalweg.recipes.texts import sentiment
from thalweg.tasks.judgement import TextJudgement
from thalweg.training import Task
from thalweg.training.machine import keep_memory

COUNT = 100
SMALL = ("counts", "textcnn", "birnn")


def recorded(name: str) -> float:
    """The test accuracy on SST-2 of the run of the model that was best on validation."""
    if name == "minilm":
        held = [run for run in runs("sst2-encoder") if run["arguments"]["pretrained"]]
    else:
        held = [run for run in runs("sentiment") if (run["arguments"]["model"], run["arguments"]["corpus"]) == (name, "sst2")]
    return max(held, key=lambda run: run["best_value"])["metrics"]["test/accuracy"]["value"]


def main() -> None:
    texts = sst2()
    tasks: dict[str, Task] = {name: sentiment(model=name).task for name in SMALL}  # type: ignore[arg-type]
    tokenizer = learn_wordpieces([one.text for one in texts.train], 30522)
    encoder = build(minilm, vocab_size=30522)
    model = build(OfText, backbone=encoder, num_outputs=2)
    tasks["minilm"] = build(TextJudgement, model=model, classes=texts.classes, tokenizer=tokenizer, longest=80)
    assert len(WordPieces(tokenizer)) <= 30522
    asked = [one.text for one in texts.test[:COUNT]]
    keep_memory()

    def timed(task: Task) -> float:
        start = time.perf_counter()
        for text in asked:
            task.predict({"text": [text]})
        return time.perf_counter() - start

    seconds = compare.alternate({name: partial(timed, task.eval()) for name, task in tasks.items()})
    facts = {name: {"accuracy": round(recorded(name), 4), "parameters": sum(p.numel() for p in task.parameters()),
                    "milliseconds": round(1000 * seconds[name] / COUNT, 2)} for name, task in tasks.items()}  # fmt: skip
    print(json.dumps({"sentences": COUNT, **facts}))


if __name__ == "__main__":
    main()
