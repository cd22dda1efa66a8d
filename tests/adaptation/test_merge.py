"""Models that went on from one are merged: the sum of what they learned, and what each knows is known to the merged one."""

import random

import pytest
import torch
from torch import nn

from thalweg.adaptation.merge import merge
from thalweg.build import build, load, save
from thalweg.cli import main
from thalweg.models.language.llama import Llama
from thalweg.recipes.language import language_model
from thalweg.training import Training, evaluate


def small(seed):
    torch.manual_seed(seed)
    return build(Llama, vocab_size=11, context=8, embed_dim=8, num_layers=1, num_heads=2, hidden_dim=16, window=4)


def test_it_is_the_base_and_the_weighted_sum_of_what_was_learned():
    base, tuned = small(0), [small(1), small(2)]
    start = {name: value.clone() for name, value in base.state_dict().items()}
    merged = merge(base, tuned, [0.5, -2.0])
    assert merged is base
    for name, value in merged.state_dict().items():
        one, two = (model.state_dict()[name] for model in tuned)
        torch.testing.assert_close(value, start[name] + 0.5 * (one - start[name]) - 2 * (two - start[name]))


def test_with_a_weight_of_one_it_becomes_the_model_and_with_halves_the_mean():
    one, two = small(1), small(2)
    torch.testing.assert_close(merge(small(0), [one], [1.0]).state_dict(), one.state_dict())
    mean = {name: (value + two.state_dict()[name]) / 2 for name, value in one.state_dict().items()}
    torch.testing.assert_close(merge(small(0), [one, two], [0.5, 0.5]).state_dict(), mean)


class Shared(nn.Module):
    """One table by two names."""

    def __init__(self):
        super().__init__()
        self.one = self.other = nn.Embedding(3, 2)


def test_a_table_of_two_names_moves_once():
    base, tuned = build(Shared), build(Shared)
    nn.init.zeros_(base.one.weight)
    nn.init.ones_(tuned.one.weight)
    assert torch.equal(merge(base, [tuned], [0.5]).other.weight, torch.full((3, 2), 0.5))


def test_whole_numbers_stay_as_they_are_in_the_base():
    base, other = build(nn.BatchNorm1d, num_features=3), build(nn.BatchNorm1d, num_features=3)
    other.num_batches_tracked += 7
    assert merge(base, [other], [1.0]).num_batches_tracked == 0


def test_what_was_built_otherwise_or_has_no_weight_is_refused():
    with pytest.raises(ValueError, match="weights: 1 for 2 models, expected one each"):
        merge(small(0), [small(1), small(2)], [1.0])
    other = build(Llama, vocab_size=11, context=8, embed_dim=8, num_layers=2, num_heads=2, hidden_dim=16)
    with pytest.raises(ValueError, match="tuned: model 1 was not built as the base was"):
        merge(small(0), [small(1), other], [0.5, 0.5])


def rivers(file, colours):
    draw = random.Random(0)
    chosen = [draw.choice(colours) for _ in range(200)]
    file.write_text("".join(f'{{"text": "{n}: The {one} river flows into the {one} sea."}}\n' for n, one in enumerate(chosen)))
    return file


def learned(folder, **arguments):
    torch.manual_seed(0)
    experiment = language_model(batch_size=8, **arguments)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    save(training.evaluated, folder / "model")
    return experiment, dict(evaluate(training, experiment.test))["loss"]


def test_fine_tunes_of_a_language_model_are_merged_into_one_that_knows_both(tmp_path, capsys):
    """The merged model, asked through the command, is nearer to each fine-tune in its own texts than the base is."""
    size = {"context": 32, "embed_dim": 64, "num_layers": 2, "vocab_size": 300}
    learned(tmp_path / "base", data=rivers(tmp_path / "base.jsonl", ["red", "blue"]), epochs=8, **size)
    texts = {name: rivers(tmp_path / f"{name}.jsonl", colours)
             for name, colours in {"one": ["green", "white"], "two": ["black", "grey"]}.items()}  # fmt: skip
    best = {}
    for name, file in texts.items():
        experiment, best[name] = learned(tmp_path / name, data=file, pretrained=tmp_path / "base", epochs=4, context=24)
        assert experiment.notes["sub-words"].startswith("300, those of ")
    main(["merge", *(str(tmp_path / name) for name in ("base", "one", "two")), "--out", str(tmp_path / "merged")])
    assert capsys.readouterr().out == f"model: {tmp_path / 'merged'}\n"
    for name, file in texts.items():
        experiment = language_model(data=file, pretrained=tmp_path / "base", batch_size=8)

        def loss(model, experiment=experiment):
            experiment.task.load_state_dict(load(model).state_dict())
            return dict(evaluate(Training(experiment, precision="fp32"), experiment.test))["loss"]

        base, merged = loss(tmp_path / "base" / "model"), loss(tmp_path / "merged")
        assert best[name] < merged < base
        assert base - merged > 0.3 * (base - best[name])


def test_what_cannot_be_merged_is_one_line(tmp_path, capsys):
    save(small(0), tmp_path / "a")
    save(build(Llama, vocab_size=12, context=8, embed_dim=8, num_layers=1, num_heads=2, hidden_dim=16), tmp_path / "b")
    for words, said in (([], "was not built as the base was"), (["--weights", "x"], "weights='x': expected numbers"),
                        (["--weights", "1,2"], "weights: 2 for 1 models")):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), *words])
        assert said in capsys.readouterr().err
