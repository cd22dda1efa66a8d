"""Sentence vectors: what they are, what they are learned by, and that they find what says the same."""

import json

import pytest
import torch
from definitions import equal_with_gradients
from parity import SENTENCES

from thalweg.adaptation.adopt import adopt
from thalweg.build import build, load, save
from thalweg.cli import main
from thalweg.data.streams import Padded
from thalweg.data.wordpieces import learn_wordpieces
from thalweg.inspection.similar import documents, ranked
from thalweg.metrics import RecallAtOne, ReciprocalRank
from thalweg.models.language.bert import BERT, minilm
from thalweg.public import export
from thalweg.tasks.sentence_vectors import SentenceVectors
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

TOKENIZER = learn_wordpieces(SENTENCES, 200)


def small(**arguments):
    model = build(BERT, vocab_size=200, context=40, embed_dim=12, num_layers=2, num_heads=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return build(SentenceVectors, model=model, tokenizer=TOKENIZER, longest=30, **arguments).eval()


def pairs(task):
    first, second = (task.pieces.batch(texts, longest=30) for texts in (SENTENCES[:3], SENTENCES[3:6]))
    return {
        f"{side}_{name}": part[name] for side, part in (("first", first), ("second", second)) for name in ("tokens", "mask")
    }


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_vector_is_the_mean_of_its_tokens_or_its_first_at_length_one_whatever_is_beside_it(pool):
    task = small(pool=pool)
    together = task.vectors(SENTENCES, batch_size=3)
    for text, vector in zip(SENTENCES, together, strict=True):
        states = task.model(torch.tensor([task.pieces.encode([text], longest=30)[0].ids]))[0]
        alone = states.mean(0) if pool == "mean" else states[0]
        torch.testing.assert_close(vector, alone / alone.norm(), rtol=1e-4, atol=1e-5)


def test_the_loss_is_its_formula_in_values_and_gradients():
    task = small().double()
    batch, total = pairs(task), 0.0
    a, b = (task.embed(batch[f"{side}_tokens"], batch[f"{side}_mask"]) for side in ("first", "second"))
    for i in range(3):
        for one, others in ((a[i], b), (b[i], a)):
            chances = torch.stack([(one @ other / 0.05).exp() for other in others])
            total = total - torch.log(chances[i] / chances.sum()) / 2
    ours, count = task.loss(batch)
    assert count == 3
    equal_with_gradients(ours, total, [p for name, p in task.named_parameters() if "pooler" not in name])


def test_the_rank_of_the_right_answer_is_what_it_says():
    metric, first = ReciprocalRank(), torch.eye(4)
    metric.update(first[:2], torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]]))
    metric.update(first[2:], torch.tensor([[0.0, 0.5, 0, 0], [0, 0, 0, 1]]))
    # the second: its own 0, another is nearer, and one as near; the third: own 0, one nearer, and one as near
    assert float(metric.compute()) == pytest.approx((1 + 1 / 4 + 1 / 4 + 1) / 4)
    assert metric.ranks().tolist() == [1, 4, 4, 1]
    at_once = RecallAtOne()
    at_once.update(first, torch.eye(4)[[0, 2, 1, 3]])
    assert float(at_once.compute()) == 0.5
    alike = ReciprocalRank()
    alike.update(torch.ones(50, 3), torch.ones(50, 3))
    assert float(alike.compute()) == pytest.approx(1 / 50)


def test_public_weights_become_sentence_vectors_as_the_files_beside_them_say(tmp_path):
    task = small()
    export(task.model, tmp_path / "public", "transformers-bare")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        adopt("bert", str(tmp_path / "public"))
    (tmp_path / "public" / "tokenizer.json").write_text(TOKENIZER)
    assert adopt("bert", str(tmp_path / "public")).longest == 40
    (tmp_path / "public" / "sentence_bert_config.json").write_text('{"max_seq_length": 30}')
    (tmp_path / "public" / "1_Pooling").mkdir()
    pooling = tmp_path / "public" / "1_Pooling" / "config.json"
    pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    taken = adopt("bert", str(tmp_path / "public"))
    assert (taken.pool, taken.longest) == ("first", 30)
    save(taken, tmp_path / "ours")
    assert torch.equal(load(tmp_path / "ours").vectors(SENTENCES), taken.vectors(SENTENCES))
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"},
               {"path": "pool", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    (tmp_path / "public" / "modules.json").write_text(json.dumps(modules))
    assert adopt("bert", str(tmp_path / "public")).pool == "mean"  # of the folder that is named
    dense = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (tmp_path / "public" / "modules.json").write_text(json.dumps([*modules, dense]))
    with pytest.raises(ValueError, match=r"modules\.json names Dense; expected Transformer, Pooling and Normalize alone"):
        adopt("bert", str(tmp_path / "public"))
    (tmp_path / "public" / "modules.json").unlink()
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match="its vectors are of pooling_mode_max_tokens"):
        adopt("bert", str(tmp_path / "public"))


def test_documents_are_the_lines_of_a_file_or_the_files_of_a_folder(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"one  cat\n\nsits")
    (tmp_path / "texts" / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="1 of 2 documents are not in UTF-8"):
        assert documents(tmp_path / "texts") == [(str(tmp_path / "texts" / "a.txt"), "one cat sits")]
    lines = tmp_path / "lines.txt"
    lines.write_text("first\n\nthird\n")
    assert documents(lines) == [(f"{lines}:1", "first"), (f"{lines}:3", "third")]
    lines.write_text("\n")
    with pytest.raises(ValueError, match="holds no text"):
        documents(lines)


def test_a_text_finds_itself_first_also_by_the_command(tmp_path, capsys):
    task = small()
    place = tmp_path / "lines.txt"
    place.write_text("\n".join(SENTENCES))
    found = ranked(task, place, SENTENCES[2], count=3)
    assert found[0][:2] == (f"{place}:3", SENTENCES[2])
    assert found[0][2] == pytest.approx(1, abs=1e-5)
    assert [cosine for *_, cosine in found] == sorted((cosine for *_, cosine in found), reverse=True)
    with pytest.raises(ValueError, match="count=0"):
        ranked(task, place, "x", count=0)
    save(task, tmp_path / "model")
    main(["similar", str(tmp_path / "model"), str(place), SENTENCES[2], "--count", "2"])
    assert capsys.readouterr().out.splitlines()[0] == f"1.0000  {place}:3  {SENTENCES[2]}"
    main(["predict", str(tmp_path / "model"), SENTENCES[0], "--json"])
    assert len(json.loads(capsys.readouterr().out)["vector"][0]) == 12
    main(["predict", str(tmp_path / "model"), SENTENCES[0]])
    assert capsys.readouterr().out.startswith(f"{SENTENCES[0]}: vector [[")


@pytest.mark.parametrize(("arguments", "words"), [({"pool": "max"}, "pool='max'"), ({"temperature": 0}, "temperature=0")])
def test_what_is_wrong_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        SentenceVectors(minilm(vocab_size=9), TOKENIZER, **arguments)


def test_a_small_encoder_learns_to_find_a_translation():
    """Numbers in English and in German share a space after a hundred steps."""
    english = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    german = ["eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht"]
    pairs = [(f"{english[a]} {english[b]}", f"{german[a]} {german[b]}") for a in range(8) for b in range(8) if a != b]
    text = learn_wordpieces([one for pair in pairs for one in pair], 90)
    model = build(BERT, vocab_size=90, context=12, embed_dim=32, num_layers=1, num_heads=2, dropout=0.0)
    task = build(SentenceVectors, model=model, tokenizer=text, temperature=0.1)
    ragged = {f"{name}_tokens": [torch.tensor(one.ids) for one in task.pieces.encode([pair[side] for pair in pairs])]
              for side, name in enumerate(("first", "second"))}  # fmt: skip
    stream = Padded(ragged, {}, 28, shuffle=True)
    training = Training(Experiment(task=task, train=stream, steps=100, optimizer=adamw(5e-3)), precision="fp32")
    before = dict(evaluate(training, stream))["mrr"]
    for _ in training:
        pass
    assert dict(evaluate(training, stream))["mrr"] > 0.5 > 0.2 > before
