"""Every recipe, as a process: two steps, a saved model, a report.

The processes are forked from one that has imported what takes seconds; it is none of the test run's own.
"""

import json
import multiprocessing
import os
import sys
from itertools import islice
from pathlib import Path

import pytest

from thalweg.cli import main
from thalweg.launch import recipes

CARRIED = {"lenet-digits", "linear-regression-diabetes", "dqn-cartpole", "unet-shapes", "mask-rcnn-shapes",
           "style-transfer", "warped-plane", "gomoku-moves", "series-forecast", "ntm-copy", "recall-by-lag",
           "reading-head-stories", "adding-problem", "pixel-attention-digits", "plate-reader", "clip-motions",
           "copying-dialogues", "long-range-arena", "tree-writer",
           "in-context-maps"}  # their data come with a dependency  # fmt: skip
# A network that has learned nothing does not say when a sentence ends, so that every translation is as long as it may be.
EASED = {name: ["--measured", "20"] for name in ("transformer-multi30k", "seq2seq-multi30k", "mask-predict-tatoeba",
                                                 "refinement-tatoeba")}  # fmt: skip
EASED |= {f"{name}-encoder": ["--longest", "24"] for name in ("sst2", "snli", "multi30k", "acceptability")}
EASED |= {"skip-thought-wikitext2": ["--limit", "2000", "--vocab-size", "1000"]}
EASED |= {"xquad-encoder": ["--longest", "96"], "sentence-vectors": ["--measured", "100", "--limit", "2000"],
          "multilingual-bert": ["--measured", "20", "--embed-dim", "64", "--vocab-size", "1000"],
          "text-to-text": ["--measured", "20", "--limit", "2000"]}  # fmt: skip
EASED |= {f"{name}-wikitext2": ["--paragraphs", "300", "--measured", "20"] for name in ("bert", "electra", "restoring")}
EASED |= {name: ["--least", "40"] for name in ("skipgram-text8", "cbow-text8", "fasttext-text8", "glove-text8")}
EASED |= {"nnlm-ptb": ["--measured", "2000", "--order", "3"]}
EASED |= {"gpt-wikitext2": ["--measured", "300", "--embed-dim", "64"]}
EASED |= {"airbench-cifar10": ["--batch-size", "64"]}
EASED |= {"headlines-ag-news": ["--beam", "1", "--embed-dim", "32", "--hidden-dim", "64"]}
NEED_DATA = {"image-classifier": "a folder of the person's own", "detector": "a folder of the person's own",
             "image-verifier": "a folder of the person's own",
             "segmenter": "images and masks of the person's own",
             "image-tagger": "images and labels of the person's own", "translator": "pairs of the person's own",
             "reinforced-tatoeba": "a run that it goes on from", "tagger": "sentences of the person's own",
             "text-classifier": "texts of the person's own", "language-model": "texts of the person's own",
             "question-answerer": "questions of the person's own"}  # fmt: skip


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["thalweg.training", "torchmetrics", "matplotlib.pyplot", "sklearn.datasets"])


class Beginning:
    """The first two batches of a stream, so that two steps are not measured on ten thousand images."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __iter__(self):
        return islice(iter(self.stream), 2)


def run(words: list[str], printed: Path) -> None:
    """The command, in this process, and what it prints in files; measured on the beginning of the data."""
    from thalweg.training import Experiment

    checked = Experiment.__post_init__

    def shortened(experiment: Experiment) -> None:
        checked(experiment)
        for part in ("valid", "test"):
            if (stream := getattr(experiment, part)) is not None:
                setattr(experiment, part, Beginning(stream))

    Experiment.__post_init__ = shortened
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(printed / stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT), stream.fileno())
    main(words)


@pytest.mark.parametrize("name", sorted(set(recipes()) - set(NEED_DATA)))
def test_every_recipe_runs_two_steps_and_leaves_a_model_and_a_report(name, tmp_path):
    if name not in CARRIED and not os.environ.get("THALWEG_DATA"):
        pytest.skip("THALWEG_DATA is not set: the real data sets are not at hand")
    out = tmp_path / "run"
    words = ["run", name, "--steps", "2", "--out", str(out), *EASED.get(name, [])]
    process = PROCESSES.Process(target=run, args=(words, tmp_path))
    process.start()
    process.join(1200)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, (tmp_path / "stderr").read_text()
    assert json.loads((out / "run.json").read_text())["steps"] == 2
    assert (out / "model" / "model.safetensors").exists()
    assert "</html>" in (out / "report.html").read_text()
    assert f"report: {out / 'report.html'}" in (tmp_path / "stdout").read_text()
