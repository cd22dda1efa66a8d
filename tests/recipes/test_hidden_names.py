"""Pre-training is measured by what a person asks to be hidden, whatever it learned from."""

from thalweg.recipes.pretraining import bert_wikitext2


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
