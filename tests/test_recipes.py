"""Every recipe, as a process: two steps, a saved model, a report."""

import json
import os
import subprocess
import sys

import pytest

from thalweg.launch import recipes

CARRIED = {"lenet-digits", "linear-regression-diabetes", "dqn-cartpole", "unet-shapes", "mask-rcnn-shapes",
           "style-transfer", "warped-plane", "gomoku-moves", "series-forecast", "ntm-copy", "recall-by-lag",
           "reading-head-stories", "adding-problem", "pixel-attention-digits", "plate-reader", "clip-motions",
           "copying-dialogues", "long-range-arena", "tree-writer"}  # their data come with a dependency  # fmt: skip
# A network that has learned nothing does not say when a sentence ends, so that every translation is as long as it may be.
EASED = {name: ["--measured", "20"] for name in ("transformer-multi30k", "seq2seq-multi30k", "mask-predict-tatoeba",
                                                 "refinement-tatoeba")}  # fmt: skip
NEED_DATA = {"image-classifier": "a folder of the person's own", "detector": "a folder of the person's own",
             "segmenter": "images and masks of the person's own",
             "image-tagger": "images and labels of the person's own", "translator": "pairs of the person's own",
             "reinforced-tatoeba": "a run that it goes on from", "tagger": "sentences of the person's own",
             "text-classifier": "texts of the person's own"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(recipes()) - set(NEED_DATA)))
def test_every_recipe_runs_two_steps_and_leaves_a_model_and_a_report(name, tmp_path):
    if name not in CARRIED and not os.environ.get("THALWEG_DATA"):
        pytest.skip("THALWEG_DATA is not set: the real data sets are not at hand")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "thalweg", "run", name, "--steps", "2", "--out", str(out), *EASED.get(name, [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["steps"] == 2
    assert (out / "model" / "model.safetensors").exists()
    assert "</html>" in (out / "report.html").read_text()
    assert f"report: {out / 'report.html'}" in done.stdout
