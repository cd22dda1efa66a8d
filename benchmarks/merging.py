"""Three fine-tunes of one small language model are merged: how much of what each learned does the merged model know?

The base reads Wikipedia (WikiText-2); from it go on a reader of film reviews (SST-2), one of descriptions of photographs
(Multi30k) and one of plays (tiny-shakespeare). Each is `thalweg run language-model`, the later ones with --pretrained; merged
by `thalweg merge` with weights of 1/3, the mean, of a half, and of 1, the sum. Loss: bits a byte of held-out texts.
"""

import json
import tempfile
from pathlib import Path

import torch

from thalweg.adaptation.merge import merge
from thalweg.build import load, save
from thalweg.data.classified import sst2
from thalweg.data.pairs import multi30k
from thalweg.data.pretraining import wikitext2
from thalweg.data.sources import tiny_shakespeare
from thalweg.recipes.language import language_model
from thalweg.training import Training, evaluate

SIZE = 400_000  # letters of a fine-tune's texts at most


def texts() -> dict[str, list[str]]:
    told = {"reviews": [one.text for one in sst2().train], "photographs": [one for one, _ in multi30k("en", "de").train],
            "plays": tiny_shakespeare().split("\n\n")}  # fmt: skip
    return {"base": wikitext2()[0][:4000]} | {name: [*dict.fromkeys(part)][: SIZE * len(part) // sum(map(len, part))]
                                              for name, part in told.items()}  # fmt: skip


def measured(model: torch.nn.Module, file: Path, base: Path) -> float:
    experiment = language_model(data=file, pretrained=base)
    experiment.task.load_state_dict(model.state_dict())
    return float(dict(evaluate(Training(experiment), experiment.test))["bits_per_byte"])


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        run = {name: Path(place, name) for name in texts()}
        file = {name: Path(place, f"{name}.jsonl") for name in run}
        for name, part in texts().items():
            file[name].write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
            torch.manual_seed(0)
            given = {"pretrained": run["base"]} if name != "base" else {"vocab_size": 4000, "embed_dim": 192}
            training = Training(language_model(data=file[name], epochs=2, **given))
            for _ in training:
                pass
            save(training.evaluated, run[name] / "model")
        kinds = [name for name in run if name != "base"]
        models = {name: load(run[name] / "model") for name in run}
        for weight in (1 / 3, 0.5, 1.0):
            tuned = [models[name] for name in kinds]
            models[f"merged by {weight:.2f}"] = merge(load(run["base"] / "model"), tuned, [weight] * 3)
        bits = {name: {kind: round(measured(model, file[kind], run["base"]), 4) for kind in file}
                for name, model in models.items()}  # fmt: skip
    kept = {name: {kind: round((bits["base"][kind] - bits[name][kind]) / (bits["base"][kind] - bits[kind][kind]), 3)
                   for kind in kinds} for name in bits if name.startswith("merged")}  # fmt: skip
    print(json.dumps({"bits_per_byte": bits, "share_of_gain_kept": kept}))


if __name__ == "__main__":
    main()
