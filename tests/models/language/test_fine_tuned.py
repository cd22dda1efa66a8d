"""Heads on an encoder: four kinds of answers, a mix of layers, and an encoder that stays as it is."""

import pytest
import torch
from definitions import equal_with_gradients
from torch.nn.functional import cross_entropy

from thalweg.build import build, load, save
from thalweg.data.labelled import WordsInPieces
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.decoding.search import beam_search
from thalweg.layers.position import sinusoidal
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import IntoText, OfText, OfTokens, OfWords
from thalweg.training.optimisers import discriminative_adamw

TOKENIZER = learn_wordpieces(["the running runner runs", "a walker walks, walking on"] * 5, 60)


def encoder():
    model = build(BERT, vocab_size=60, context=40, embed_dim=8, num_layers=2, num_heads=2, dropout=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def texts():
    torch.manual_seed(1)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    return torch.randint(5, 60, (2, 9)), mask, (torch.arange(9) > 3).long().expand(2, 9)


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_text_is_judged_by_the_mean_of_its_tokens_or_by_the_first(pool):
    model = OfText(encoder(), 3, pool=pool, dropout=0.0).double().eval()
    tokens, mask, segment = texts()
    states = model.reading.backbone(tokens, mask, segment)
    if pool == "mean":
        x = torch.stack([row[real].mean(0) for row, real in zip(states, mask, strict=True)])
    else:
        x = torch.tanh(states[:, 0] @ model.reading.backbone.pooler.weight.T + model.reading.backbone.pooler.bias)
    parameters = [p for p in model.parameters() if p.requires_grad]
    equal_with_gradients(model(tokens, mask, segment), x @ model.head.weight.T + model.head.bias, parameters)


def test_tokens_are_judged_each_by_itself():
    model = OfTokens(encoder(), 2, dropout=0.0).double().eval()
    states = model.reading.backbone(*texts())
    said = torch.stack([torch.stack([model.head.weight @ x + model.head.bias for x in row]) for row in states])
    equal_with_gradients(model(*texts()), said, [p for p in model.parameters() if p.requires_grad])


def test_tokens_may_be_judged_by_a_perceptron():
    model = OfTokens(encoder(), 2, hidden_dim=5, dropout=0.0).double().eval()
    first, _, last = model.head
    assert first.weight.shape == (5, model.reading.backbone.embedding.embedding_dim)
    hidden = model.reading.backbone(*texts()) @ first.weight.T + first.bias
    said = hidden * torch.special.ndtr(hidden) @ last.weight.T + last.bias  # gelu(x) = x P(X <= x)
    equal_with_gradients(model(*texts()), said, [p for p in model.parameters() if p.requires_grad])


def test_words_are_judged_by_their_first_pieces_in_the_text_that_all_pieces_are():
    reader, pieces = WordsInPieces(TOKENIZER), WordPieces(TOKENIZER)
    model = OfWords(encoder(), 3, begin=pieces.cls, end=pieces.sep, dropout=0.0).eval()
    sentences = [["a", "walkinger", "runninger", "on"], ["the", "runner"]]
    encoded = [reader.encode(words) for words in sentences]
    tokens, letters = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*encoded, strict=True))
    said = model(tokens, letters, tokens != 0)
    for row, words in enumerate(sentences):
        text = pieces.tokenizer.encode(" ".join(words))
        alone = model.head(model.reading.backbone(torch.tensor([text.ids])))[0]
        first = [text.word_ids.index(number) for number in range(len(words))]
        assert len(text.ids) > len(words) + 2 or row
        torch.testing.assert_close(said[row, : len(words)], alone[first], rtol=1e-4, atol=1e-5)


def test_a_sentence_longer_than_the_encoder_reads_is_read_in_several():
    reader, pieces = WordsInPieces(TOKENIZER), WordPieces(TOKENIZER)
    model = OfWords(encoder(), 3, begin=pieces.cls, end=pieces.sep, dropout=0.0).eval()
    sentences = [["walkinger", "a", "the"] * 20, ["the", "runner"]]
    encoded = [reader.encode(words) for words in sentences]
    tokens, letters = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*encoded, strict=True))
    said = model(tokens, letters, tokens != 0)
    text = pieces.tokenizer.encode(" ".join(sentences[0]), add_special_tokens=False)
    first = [text.word_ids.index(number) for number in range(60)]
    size = 40 - 2
    windows = [text.ids[place : place + size] for place in range(0, len(text.ids), size)]
    assert len(windows) > 2
    alone = [model.reading.backbone(torch.tensor([[pieces.cls, *window, pieces.sep]]))[0, 1:-1] for window in windows]
    torch.testing.assert_close(said[0], model.head(torch.cat(alone))[first], rtol=1e-4, atol=1e-5)
    short = pieces.tokenizer.encode(" ".join(sentences[1])).ids
    torch.testing.assert_close(
        said[1, :1], model.head(model.reading.backbone(torch.tensor([short])))[0, 1:2], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("make", [OfText, OfTokens])
def test_a_frozen_encoder_stays_as_it_is_and_a_mix_above_it_learns(make):
    model = make(encoder(), 2, frozen=True, weighted=True).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert not model.reading.backbone.training
    optimizer = discriminative_adamw(0.1)(model)
    model(*texts()).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"reading.mix.weight", "reading.mix.scale", "head.weight", "head.bias"}
    free = make(encoder(), 2).train()
    before = {name: p.clone() for name, p in free.named_parameters()}
    optimizer = discriminative_adamw(0.1, backbone=0.01)(free)
    free(*texts()).square().sum().backward()
    optimizer.step()
    change = {name: float((p - before[name]).abs().max()) for name, p in free.named_parameters()}
    assert change["head.weight"] == pytest.approx(0.1, rel=0.01)
    assert change["reading.backbone.blocks.0.mlp.up.weight"] == pytest.approx(0.001, rel=0.01)
    assert change["reading.backbone.pooler.weight"] == 0  # what only pre-training needs


def test_a_text_is_written_by_a_decoder_that_looks_at_what_was_read_and_at_what_is_written():
    model = IntoText(encoder(), 11, num_layers=2, dropout=0.0).double().eval()
    for parameter in model.blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    (source, mask, _), target = texts(), torch.randint(11, (2, 6))
    states, x = model.reading.backbone(source, mask), 8**0.5 * model.embedding(target)
    x = x + sinusoidal(0, 6, 8, x)
    for block in model.blocks:
        seen = block.attention_norm(x)
        x = x + block.attention(seen, *block.attention.read(seen), torch.ones(6, 6, dtype=torch.bool).tril())
        x = x + block.cross(block.cross_norm(x), *block.cross.read(states), mask[:, None, None])
        x = x + block.down(block.up(block.mlp_norm(x)).relu())
    parameters = [p for p in model.parameters() if p.requires_grad]
    equal_with_gradients(model(source, mask, target), model.norm(x) @ model.embedding.weight.T, parameters)
    memory = model.encode(source, mask)
    cache = model.new_cache(memory, 1, 6)
    steps = [model.decode(target[:, place : place + 1], memory, cache) for place in range(6)]
    torch.testing.assert_close(torch.cat(steps, 1), model(source, mask, target), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_an_encoder_with_a_decoder_learns_to_write_what_it_read_backwards():
    reader = build(BERT, vocab_size=60, context=40, embed_dim=32, num_layers=1, num_heads=2, dropout=0.0)
    model = IntoText(reader, 60, num_layers=1, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(400):
        source = torch.randint(5, 15, (32, 5))
        target = torch.cat([torch.full((32, 1), 2), source.flip(1)], 1)
        logits = model(source, torch.ones(32, 5, dtype=torch.bool), target[:, :-1])
        optimizer.zero_grad()
        cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()).backward()
        optimizer.step()
    source = torch.randint(5, 15, (20, 5))
    found, _ = beam_search(model.eval(), source, torch.ones(20, 5, dtype=torch.bool), bos=2, eos=3, pad=0, beam=1, length=5)
    assert (found[:, 0] == source.flip(1)).float().mean() > 0.8


def test_a_fine_tuned_model_comes_back_from_its_folder(tmp_path):
    model = build(OfText, backbone=encoder(), num_outputs=2, weighted=True, frozen=True).eval()
    save(model, tmp_path)
    assert torch.equal(load(tmp_path)(*texts()), model(*texts()))


def test_another_pool_is_refused():
    with pytest.raises(ValueError, match="pool='max': expected mean or first"):
        OfText(encoder(), 2, pool="max")
