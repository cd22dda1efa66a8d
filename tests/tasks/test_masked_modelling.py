"""Hidden tokens, pairs and borders: losses are what they say, and a small encoder learns all of them."""

import math

import pytest
import torch
from definitions import equal_with_gradients
from torch.nn.functional import cross_entropy

from thalweg.adaptation.encoders import pretrained_encoder
from thalweg.build import build, load, save
from thalweg.data.pretraining import Pretraining
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfTokens
from thalweg.models.language.masked import MaskedEncoder, SpanBoundary, TokenHead
from thalweg.tasks.masked_modelling import MaskedModelling
from thalweg.tasks.replaced_tokens import ReplacedTokens
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PARAGRAPHS = [" . ".join([" ".join([number] * 6)] * 4) + " ." for number in NUMBERS for _ in range(4)]
TOKENIZER = learn_wordpieces(PARAGRAPHS, 60)
PIECES = WordPieces(TOKENIZER, marks=True)


def encoder(dim=32, layers=1):
    return build(BERT, vocab_size=len(PIECES), context=40, embed_dim=dim, num_layers=layers, num_heads=2, dropout=0.0)


def task(pairs=False, boundary=False, **sizes):
    model = build(MaskedEncoder, backbone=encoder(**sizes), pairs=pairs, boundary=boundary)
    return build(MaskedModelling, model=model, tokenizer=TOKENIZER, frequent=PIECES.encode(["."])[0].ids[1])


def stream(**how):
    return Pretraining(PARAGRAPHS, PIECES, 16, context=40, shuffle=True, **how)


def trained(task, steps, lr=4e-3, **how):
    data = stream(**how)
    schedule = warmup(0.1, linear())
    experiment = Experiment(task=task, train=data, steps=steps, optimizer=adamw(lr), schedule=schedule, clip=1.0)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    return {name: float(value) for name, value in evaluate(training, data)}


def test_a_head_of_tokens_is_its_formula_in_values_and_gradients():
    head, x, embedding = TokenHead(9, 4).double(), torch.randn(3, 4).double(), torch.randn(9, 4).double()
    x.requires_grad_()
    rows = []
    for one in x:
        y = head.dense.weight @ one + head.dense.bias
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        y = (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt() * head.norm.weight + head.norm.bias
        rows.append(torch.stack([embedding[token] @ y + head.bias[token] for token in range(9)]))
    equal_with_gradients(head(x, embedding), torch.stack(rows), [x, *head.parameters()])


def test_a_hidden_token_is_told_by_the_borders_of_its_span_alone():
    boundary, x = SpanBoundary(6), torch.randn(2, 9, 6, requires_grad=True)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[0, 2:5] = hidden[1, 6] = True
    said = boundary(x, hidden)
    assert said.shape == (4, 6)
    said[:3].sum().backward()
    assert x.grad.abs().sum(2).nonzero().tolist() == [[0, 1], [0, 5]]  # of tokens 2, 3, 4
    assert (said[0] - said[1]).abs().max() > 1e-3  # their numbers tell them apart


@pytest.mark.parametrize(("pairs", "boundary"), [(False, False), (True, False), (True, True)])
def test_the_loss_is_a_sum_over_hidden_tokens_and_a_pair_counts_as_several(pairs, boundary):
    modelling = task(pairs, boundary).eval()
    batch = stream(objective="nsp" if pairs else "mlm", masking="span" if boundary else "token").batch(0)
    states = modelling.model.backbone(batch["tokens"], batch["mask"], batch["segment"])
    total = 0.0
    for row in range(len(states)):
        for place in batch["hidden"][row].nonzero().flatten().tolist():
            logits = modelling.model.token_head(states[row, place], modelling.model.backbone.embedding.weight)
            total = total - logits.log_softmax(0)[batch["original"][row, place]]
        if pairs:
            logits = modelling.model.pair_head(modelling.model.backbone.pooled(states[row : row + 1]))[0]
            total = total - 5 * logits.log_softmax(0)[batch["label"][row]]
    ours, count = modelling.loss(batch)
    if boundary:
        said = modelling.said(batch)["boundary"]
        total = total + cross_entropy(said, batch["original"][batch["hidden"]], reduction="sum")
    assert int(count) == int(batch["hidden"].sum())
    torch.testing.assert_close(ours, total)


def test_a_small_encoder_learns_what_is_hidden_by_what_is_around_it_and_by_borders(tmp_path):
    modelling = task(boundary=True)
    found = trained(modelling, 280, masking="span")
    assert found["accuracy"] > 0.7 > 0.3 > found["unigram_accuracy"]
    assert found["boundary_loss"] < 1.5 < math.log(10)  # by guessing among ten numbers
    save(modelling.eval(), tmp_path / "model")
    loaded = load(tmp_path / "model")
    said = loaded.predict({"text": ["three three [MASK] three three three ."]}, top_k=2)
    assert said["text"] == ["three three three three three three."]
    assert said["label"][0][0] == "three"
    assert said["probability"][0][0] > 0.5
    with pytest.raises(ValueError, match=r"has no \[MASK\]"):
        loaded.predict({"text": ["three"]})
    taken, tokenizer = pretrained_encoder(str(tmp_path))  # a run, to fine-tune
    assert torch.equal(taken.embedding.weight, modelling.model.backbone.embedding.weight)
    assert tokenizer == PIECES.text
    assert modelling.figures(stream().batch(0)).keys() == {"hidden"}


def test_what_must_not_be_read_is_not():
    modelling, data = task().eval(), stream(objective="unilm")
    batch = next(batch for batch in map(data.batch, range(20)) if not batch["sees"][0, 1, 2:].any())
    states = modelling.model.backbone(batch["tokens"], batch["sees"], batch["segment"])
    other = batch["tokens"].clone()
    other[:, 5:] = PIECES.mask
    torch.testing.assert_close(modelling.model.backbone(other, batch["sees"], batch["segment"])[:, :5], states[:, :5])


def test_two_streams_tell_a_token_by_what_is_shown_and_by_those_before_it_in_turn_never_by_itself():
    torch.manual_seed(2)
    model = build(MaskedEncoder, backbone=encoder(layers=2), query=PIECES.mask).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = stream(objective="permutation", share=0.4).batch(0)
    assert torch.equal(batch["tokens"], batch["original"])

    def said(tokens):
        return model(tokens, batch["sees"], batch["segment"], batch["hidden"])["tokens"]

    before, asked = said(batch["tokens"]), batch["hidden"].nonzero()
    heard = []
    for row, place in batch["mask"][:2].nonzero().tolist():
        other = batch["tokens"].clone()
        other[row, place] = 5 + (other[row, place] - 4) % 9
        changed = (said(other) - before).abs().amax(1) > 1e-5
        for number, (asker, reader) in enumerate(asked.tolist()):
            direct = asker == row and bool(batch["sees"][row, reader, place])
            heard.append(direct)
            assert bool(changed[number]) is direct  # by way of others too: who is read has read no more than that
    assert 0 < sum(heard) < len(heard)


@pytest.mark.slow
def test_a_small_encoder_learns_to_foretell_in_any_order():
    modelling = build(MaskedModelling, model=build(MaskedEncoder, backbone=encoder(), query=PIECES.mask), tokenizer=TOKENIZER,
                      frequent=PIECES.encode(["."])[0].ids[1])  # fmt: skip
    assert trained(modelling, 200, objective="permutation")["accuracy"] > 0.7
    said = modelling.eval().predict({"text": ["three three [MASK] three three three ."]}, top_k=1)
    assert said["label"] == [["three"]]


def test_electra_judges_every_token_and_only_the_generator_learns_to_fill_in():
    electra = build(ReplacedTokens, discriminator=build(OfTokens, backbone=encoder(), num_outputs=1),
                    generator=build(MaskedEncoder, backbone=encoder()), tokenizer=TOKENIZER)  # fmt: skip
    batch = stream().batch(0)
    logits, text, judged, replaced = electra.played(batch)
    assert torch.equal(text[~batch["hidden"]], batch["original"][~batch["hidden"]])
    assert torch.equal(replaced, text != batch["original"])
    torch.manual_seed(3)
    total, count = electra.loss(batch)
    torch.manual_seed(3)
    logits, text, judged, replaced = electra.played(batch)
    filled = cross_entropy(logits, batch["original"][batch["hidden"]], reduction="sum")
    chances = judged.sigmoid()[batch["mask"]]
    found = torch.where(replaced[batch["mask"]], chances, 1 - chances).log().sum()
    torch.testing.assert_close(total, filled - 7.5 * found, rtol=1e-4, atol=1e-3)
    assert int(count) == int(batch["hidden"].sum())
    judged.sum().backward()
    judge, filler = electra.discriminator.reading.backbone, electra.generator.backbone
    assert filler.embedding is judge.embedding  # a word is learned by both
    tables = {id(part.weight) for part in (judge.embedding, judge.position, judge.segment)}
    assert all(p.grad is None for p in electra.generator.parameters() if id(p) not in tables)
    with pytest.raises(ValueError, match=r"generator: a table embedding of \(\d+, 16\), expected that of the discriminator"):
        build(ReplacedTokens, discriminator=build(OfTokens, backbone=encoder(), num_outputs=1),
              generator=build(MaskedEncoder, backbone=encoder(16)), tokenizer=TOKENIZER)  # fmt: skip


@pytest.mark.slow
def test_electra_finds_what_a_generator_has_replaced(tmp_path):
    electra = build(ReplacedTokens, discriminator=build(OfTokens, backbone=encoder(layers=2), num_outputs=1),
                    generator=build(MaskedEncoder, backbone=encoder()), tokenizer=TOKENIZER)  # fmt: skip
    found = trained(electra, 300)
    assert found["f1"] > 2 * found["base_f1"]
    save(electra.eval(), tmp_path)
    said = load(tmp_path).predict({"text": ["three three nine three three three ."]})["text"][0].split("\n")
    chances = {line.split()[0]: float(line.split()[1]) for line in said}
    assert max(chances, key=chances.get) == "nine"
    assert torch.equal(
        pretrained_encoder(str(tmp_path))[0].embedding.weight, electra.discriminator.reading.backbone.embedding.weight
    )
