"""What was learned from texts without labels, or from translations, helps where labels are few: ELMo and CoVe."""

import random
from pathlib import Path

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.labelled import LabelledSentences, Letters, Sentence
from thalweg.data.pairs import UNK
from thalweg.data.streams import Padded, padded
from thalweg.models.language.elmo import ELMo
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq
from thalweg.models.sequence.tagger import Tagger
from thalweg.recipes.labelling import tagger_ewt
from thalweg.recipes.texts import sentiment
from thalweg.tasks.both_ways import BothWays
from thalweg.tasks.labelling import Labelling
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

KINDS = {"NOUN": 40, "VERB": 40, "DET": 3}
AFTER = {"DET": ("NOUN",), "NOUN": ("VERB", "VERB", "DET"), "VERB": ("DET", "NOUN")}


def sentences(count: int, seed: int) -> list[Sentence]:
    """Chains of kinds of words; how a word is spelt does not tell its kind."""
    draw, made = random.Random(seed), []
    spelt = random.Random(0).sample([a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnpr"], sum(KINDS.values()))
    words, start = {}, 0
    for kind, size in KINDS.items():
        words[kind], start = spelt[start : start + size], start + size
    for _ in range(count):
        kinds = [draw.choice([*KINDS])]
        while len(kinds) < 8:
            kinds.append(draw.choice(AFTER[kinds[-1]]))
        made.append(Sentence(tuple(draw.choice(words[kind]) for kind in kinds), tuple(kinds)))
    return made


def trained(task, stream, steps, lr):
    training = Training(Experiment(task=task, train=stream, steps=steps, optimizer=adamw(lr)), device="cpu", precision="fp32")
    for _ in training:
        pass
    return training


def test_the_layers_of_a_language_model_say_what_kind_of_word_few_labels_did_not(tmp_path):
    text = sentences(1000, 1)
    known = " ".join(sorted({word for sentence in text for word in sentence.words}))
    alphabet, classes = "abdefgiklmnopru", ("DET", "NOUN", "VERB")
    reader = Letters(known, alphabet)
    elmo = build(ELMo, vocab_size=len(reader.words), embed_dim=16, hidden_dim=24, dropout=0.0)
    task = build(BothWays, model=elmo, words=known)
    read = Padded({"tokens": [reader.encode(one.words)[0] for one in text]}, {}, 50, shuffle=True)
    language = trained(task, read, 120, 0.01)
    measured = dict(evaluate(language, Padded({"tokens": [reader.encode(one.words)[0] for one in sentences(50, 2)]}, {}, 50)))
    assert measured["perplexity_forward"] < 50  # of 83 words, the kinds alone leave about 35
    assert measured["perplexity_backward"] < 50
    found, weight = {}, None
    for name, encoder in (("alone", None), ("with ELMo", elmo)):
        torch.manual_seed(0)
        arguments = {"encoder": encoder} if encoder else {}
        model = build(Tagger, vocab_size=len(reader.words), num_letters=2 + len(alphabet), num_labels=3, embed_dim=16,
                      hidden_dim=16, letter_dim=8, affix_dim=2, context="window", window=0, **arguments)  # fmt: skip
        labelling = build(Labelling, model=model, classes=classes, words=known, alphabet=alphabet, objective="independent")
        few, test = (LabelledSentences(part, reader, classes, 8) for part in (sentences(8, 3), sentences(100, 4)))
        found[name] = float(dict(evaluate(trained(labelling, few, 60, 0.01), test))["accuracy"])
        if encoder:
            weight = model.mix.weight
            save(labelling, tmp_path / "model")
            again = load(tmp_path / "model")
            said = {"text": [" ".join(sentences(1, 5)[0].words)]}
            assert again.predict(said) == labelling.eval().predict(said)
            assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert found["with ELMo"] > found["alone"] + 0.1
    assert weight.any()  # the mix has been learned


def test_the_words_around_surprise_less():
    torch.manual_seed(0)
    task = build(BothWays, model=build(ELMo, vocab_size=7, embed_dim=4, hidden_dim=5), words="a b c").eval()
    (said,) = task.predict({"text": ["A b c"]})["text"]
    assert [line.split()[0] for line in said.split("\n")] == ["a", "b", "c"]
    assert said.split("\n")[0].split()[1] == said.split("\n")[2].split()[2] == "-"
    with pytest.raises(ValueError, match="text: 'a': expected at least two words"):
        task.predict({"text": ["a"]})


def run_of(task, folder: Path) -> Path:
    save(task, folder / "model")
    return folder


def test_a_classifier_reads_what_the_encoder_of_a_translation_makes_of_its_words(tmp_path, data_folder):
    words = "the film is good bad ."
    writer = build(AttentionSeq2Seq, source_vocab_size=10, target_vocab_size=8, embed_dim=6, hidden_dim=8)
    translation = build(Transduction, model=writer, source_words=words, target_words="le film est bon").eval()
    task = sentiment(model="birnn", encoder=run_of(translation, tmp_path / "a")).task.eval()
    assert len(sentiment(corpus="mr", labelled=31).train.fixed["label"].unique()) == 2  # MR lies class by class
    assert task.reader.words[:10] == translation.source.words
    batch = padded({"tokens": task.encode(["the film is good", "bad performances"])})
    assert int(batch["tokens"][1, 1]) >= 10  # the classifier knows a word that the translation does not
    (layer,) = task.model.encoder.layers(**batch)
    known = batch["tokens"].where(batch["tokens"] < 10, UNK)
    outputs, _ = translation.model.encoder(known, batch["mask"])
    torch.testing.assert_close(layer, outputs, rtol=0, atol=0)
    save(task, tmp_path / "model")
    assert torch.equal(load(tmp_path / "model").logits(batch), task.logits(batch))
    with pytest.raises(ValueError, match=r"encoder=.*: expected model=birnn and no vectors"):
        sentiment(encoder=tmp_path / "a")
    other = run_of(build(BothWays, model=build(ELMo, vocab_size=7), words="a b c"), tmp_path / "b")
    with pytest.raises(ValueError, match=r"encoder=.*: expected a run of seq2seq-tatoeba"):
        sentiment(model="birnn", encoder=other)
    tagger = tagger_ewt(encoder=tmp_path / "a", examples=100).task
    assert tagger.reader.words.words[:10] == translation.source.words
    assert len(tagger.reader.words) > 10
    with pytest.raises(
        ValueError, match=r"encoder=.*: a run of TextClassification, expected one of elmo-ewt or seq2seq-tatoeba"
    ):
        tagger_ewt(encoder=tmp_path, examples=10)
