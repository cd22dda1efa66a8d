"""Pre-training is measured by what a person asks to be hidden, whatever it learned from; another goes on from it."""

import pytest
import torch

from thalweg.build import save
from thalweg.recipes.pretraining import bert_wikitext2, electra_wikitext2


def test_names_may_be_asked_of_one_who_learned_from_single_tokens(data_folder):
    how = {"paragraphs": 300, "measured": 20, "vocab_size": 1000, "embed_dim": 32, "num_layers": 1}
    asked = bert_wikitext2(masking="token", measured_masking="entity", **how)
    names = bert_wikitext2(masking="entity", **how)
    tokens = bert_wikitext2(masking="token", **how)
    for part in ("valid", "test"):
        batches = [getattr(one, part).batch(0)["hidden"] for one in (asked, names, tokens)]
        assert batches[0].equal(batches[1])
        assert not batches[0].equal(batches[2])
    assert asked.train.batch(0)["hidden"].equal(tokens.train.batch(0)["hidden"])


def test_electra_goes_on_from_an_encoder_that_learned_hidden_tokens(tmp_path, data_folder):
    how = {"paragraphs": 300, "measured": 20, "vocab_size": 1000, "embed_dim": 32, "num_layers": 1}
    before = bert_wikitext2(**how).task
    save(before, tmp_path / "model")
    task = electra_wikitext2(start=tmp_path, paragraphs=300, measured=20).task
    judge, filler = task.discriminator.reading.backbone, task.generator
    for name, value in before.model.state_dict().items():
        assert torch.equal(filler.state_dict()[name], value)
    assert torch.equal(judge.blocks[0].mlp.up.weight, before.model.backbone.blocks[0].mlp.up.weight)
    assert judge.blocks[0] is not filler.backbone.blocks[0]
    save(task, tmp_path / "other" / "model")
    with pytest.raises(ValueError, match="a run of ReplacedTokens, expected one of bert-wikitext2"):
        electra_wikitext2(start=tmp_path / "other", paragraphs=300, measured=20)
