"""Language modelling: the loss and its mask, perplexity, texts that go on, and a small model that learns."""

import codecs
import contextlib
import io
import math

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.text import Characters, Partition, Windows
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw, muon
from thalweg.training.schedules import linear, warmup

with contextlib.redirect_stdout(io.StringIO()):
    import this

ZEN = codecs.decode(this.s, "rot13")  # 856 characters that every Python carries
ALPHABET = "".join(sorted(set(ZEN)))


@pytest.fixture
def task():
    model = build(RotaryGPT, vocab_size=len(ALPHABET), embed_dim=16, num_layers=1, num_heads=2)
    task = build(LanguageModelling, model=model, alphabet=ALPHABET, context=12).eval()
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task


def test_the_loss_is_the_sum_of_minus_log_p_of_what_the_mask_counts(task):
    tokens, mask = torch.randint(len(ALPHABET), (3, 9)), torch.rand(3, 9) < 0.6
    total, terms = 0.0, 0
    for text, counted in zip(tokens, mask, strict=True):
        for t in range(1, 9):
            if counted[t]:
                total -= task.model(text[None, :t])[0, -1].log_softmax(-1)[text[t]]
                terms += 1
    loss, count = task.loss({"tokens": tokens, "mask": mask})
    assert count == terms
    assert abs(loss - total) < 1e-4
    assert task.loss({"tokens": tokens})[1] == 24


def test_a_masked_token_has_no_gradient_and_no_weight(task):
    tokens = torch.randint(len(ALPHABET), (2, 9))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, 6:] = False
    changed = tokens.clone()
    changed[:, 6:] = 0
    assert task.loss({"tokens": tokens, "mask": mask})[0] == task.loss({"tokens": changed, "mask": mask})[0]


def test_the_perplexity_of_a_model_that_knows_nothing_is_the_number_of_characters(task):
    torch.nn.init.zeros_(task.model.head.weight)
    for batch in Windows(Characters(ALPHABET).encode(ZEN), 12, 8):
        task.evaluate(batch)
    assert task.metrics["perplexity"].compute() == pytest.approx(len(ALPHABET))
    assert task.metrics["loss"].compute() == pytest.approx(math.log(len(ALPHABET)))
    assert not task.metrics["perplexity"].higher_is_better


def test_the_loss_of_a_text_does_not_depend_on_how_its_windows_are_batched(task):
    tokens, measured = Characters(ALPHABET).encode(ZEN), []
    for batch_size in (1, 7, 100):
        task.metrics.reset()
        for batch in Windows(tokens, 12, batch_size, stride=5):
            task.evaluate(batch)
        measured.append(float(task.metrics["loss"].compute()))
    assert measured == pytest.approx(3 * [measured[0]], rel=1e-5)


def test_a_text_goes_on_by_as_many_characters_as_asked_beyond_the_context(task):
    texts = task.predict({"text": ["Beautiful", "Now", "x" * 20]}, length=30)["text"]
    assert [len(text) for text in texts] == [39, 33, 50]
    assert texts[0].startswith("Beautiful")
    assert texts[2].startswith("x" * 20)


def test_the_seed_decides_the_text(task):
    one, same, other = (task.predict({"text": ["Now"]}, seed=seed)["text"] for seed in (1, 1, 2))
    assert one == same != other


def test_a_saved_task_writes_the_same_text(task, tmp_path):
    save(task, tmp_path)
    assert load(tmp_path).predict({"text": ["Now"]}, seed=3) == task.predict({"text": ["Now"]}, seed=3)


def test_what_cannot_be_read_is_named(task):
    with pytest.raises(ValueError, match="'é' are not in the alphabet"):
        task.predict({"text": ["Nové"]})
    with pytest.raises(ValueError, match="prompt: empty, expected a text to go on from"):
        task.predict({"text": ["Now", ""]})


def test_its_figures_show_a_real_text_and_one_of_its_own(task):
    drawn = task.figures(next(iter(Windows(Characters(ALPHABET).encode(ZEN), 12, 8))))
    assert sorted(drawn) == ["own text", "real text"]
    written = "".join(text.get_text() for text in drawn["real text"].axes[0].texts)
    assert written == ZEN[1:13].replace("\n", "↵")


def bigram_entropy(tokens):
    """The mean of -log p(x_t | x_{t-1}) under the counts of this very text: the least that one character back can tell."""
    counts = torch.zeros(len(ALPHABET), len(ALPHABET))
    counts.index_put_((tokens[:-1], tokens[1:]), torch.ones(len(tokens) - 1), accumulate=True)
    p = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return float(-(counts[counts > 0] * p[counts > 0].log()).sum() / counts.sum())


@pytest.mark.parametrize(("family", "most"), [("rotary", 0.6), ("gpt", 0.75), ("llama", 0.75)])
def test_a_small_model_learns_more_of_a_text_than_pairs_of_characters_tell(family, most):
    size = {"vocab_size": len(ALPHABET), "embed_dim": 64, "num_layers": 2, "num_heads": 2}
    more = {"rotary": {}, "gpt": {"context": 64}, "llama": {"context": 64, "num_key_value_heads": 1, "hidden_dim": 128}}
    model = build({"rotary": RotaryGPT, "gpt": GPT, "llama": Llama}[family], **size, **more[family])
    tokens = Characters(ALPHABET).encode(ZEN)
    experiment = Experiment(
        task=build(LanguageModelling, model=model, alphabet=ALPHABET, context=64),
        train=Windows(tokens, 64, 8, shuffle=True),
        valid=Windows(tokens, 64, 64),
        steps=80,
        optimizer=muon(0.03, other=adamw(0.01)),
        schedule=warmup(0.1, linear()),
    )
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.valid))["loss"] < most * bigram_entropy(tokens)


class Successor(torch.nn.Module):
    """Says of every token, with certainty, that the next one is its number plus one."""

    def forward(self, tokens):
        return 1000.0 * torch.nn.functional.one_hot((tokens + 1) % 8, 8).float()


@pytest.mark.parametrize(("own", "steps", "share"), [(1.0, 1, 1.0), (0.5, 1, 0.5), (1.0, 4, 0.25)])
def test_a_share_of_what_is_read_are_the_model_s_own_guesses(own, steps, share):
    task = LanguageModelling(Successor(), "abcdefgh", 6, own=own, own_steps=steps)
    tokens = torch.randint(8, (400, 50))
    guess = (tokens + 1) % 8
    read = task.mixed(tokens)
    assert torch.equal(read[:, 0], tokens[:, 0])
    differs = tokens[:, 1:] != guess[:, :-1]
    assert torch.equal(read[:, 1:][read[:, 1:] != tokens[:, 1:]], guess[:, :-1][read[:, 1:] != tokens[:, 1:]])
    assert (read[:, 1:] != tokens[:, 1:])[differs].float().mean() == pytest.approx(share, abs=0.02)


def test_the_share_of_own_guesses_rises_with_the_batches_and_is_for_training_only():
    task = LanguageModelling(Successor(), "abcdefgh", 6, own=0.8, own_steps=4)
    batch = {"tokens": torch.zeros(100, 51, dtype=torch.long)}
    guessed = [(task.mixed(batch["tokens"])[:, 1:] == 1).float().mean().item() for _ in range(6)]
    assert guessed == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8], abs=0.03)
    right = LanguageModelling(Successor(), "abcdefgh", 6, own=1.0)
    counting = {"tokens": torch.tensor([[0, 1, 2, 3], [0, 5, 6, 7]])}
    assert right.eval().loss(counting)[0] == pytest.approx(1000)  # 5 after 0 alone is a surprise
    assert right.train().loss(counting)[0] == pytest.approx(2000)  # and 6 after 1, which it had guessed itself


@pytest.mark.parametrize(("own", "steps", "error"), [(1.5, 1, "own=1.5"), (0.5, 0, "own_steps=0")])
def test_a_share_that_is_none_is_refused(own, steps, error):
    with pytest.raises(ValueError, match=error):
        LanguageModelling(Successor(), "abc", 4, own=own, own_steps=steps)


def unbroken(rows: int, cell: str = "lstm", **arguments) -> LanguageModelling:
    model = build(RecurrentLanguageModel, vocab_size=len(ALPHABET), hidden_dim=16, cell=cell, num_layers=2)
    return build(LanguageModelling, model=model, alphabet=ALPHABET, context=100, rows=rows, **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_a_text_in_pieces_is_read_as_if_it_were_whole(training):
    task, tokens = unbroken(3), Characters(ALPHABET).encode(ZEN)
    task.train(training)
    stream = Partition(tokens, 20, 3)
    for _ in range(2):  # in each pass anew
        pieces = [task.loss(batch) for batch in stream]
        whole = torch.stack([torch.cat([b["tokens"][row, :20] for b in stream] + [[*stream][-1]["tokens"][row, -1:]])
                             for row in range(3)])  # fmt: skip
        torch.testing.assert_close(torch.stack([total for total, _ in pieces]).sum(), task.surprise(whole).sum())


def test_the_gradient_stays_in_its_piece():
    task, tokens = unbroken(3).double().train(), Characters(ALPHABET).encode(ZEN)
    first, second = (Partition(tokens, 20, 3).batch(number) for number in (0, 1))
    task.loss(first)
    state = [task.state0.clone(), task.state1.clone()]
    assert all(part.any() for part in state)
    ours = torch.autograd.grad(task.loss(second)[0], [*task.model.rnn.parameters()])
    theirs = torch.autograd.grad(task.surprise(second["tokens"], cache=state).sum(), [*task.model.rnn.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_checkpoint_holds_the_state_so_that_the_run_goes_on_as_it_would_have():
    def training() -> Training:
        torch.manual_seed(0)
        stream = Partition(Characters(ALPHABET).encode(ZEN), 20, 3, shuffle=True)
        return Training(Experiment(task=unbroken(3), train=stream, steps=12, optimizer=adamw(0.01)), device="cpu")

    whole = [step.losses[""].item() for step in training()]
    first, losses = training(), []
    for step in first:
        losses.append(step.losses[""].item())
        if step.number == 7:
            break
    other = training()
    other.load_state_dict(first.state_dict())
    assert losses + [step.losses[""].item() for step in other] == whole


@pytest.mark.parametrize(("cell", "partition"), [("rnn", Windows), ("gru", Partition), ("lstm", Partition)])
def test_recurrent_networks_learn_a_text_by_heart(cell, partition):
    torch.manual_seed(0)
    tokens = Characters(ALPHABET).encode(ZEN)
    model = build(RecurrentLanguageModel, vocab_size=len(ALPHABET), hidden_dim=96, cell=cell)
    task = build(LanguageModelling, model=model, alphabet=ALPHABET, context=100, rows=8 if partition is Partition else 0)
    training = Training(Experiment(task=task, train=partition(tokens, 20, 8, shuffle=True), steps=500, clip=1.0,
                                   optimizer=adamw(0.01, weight_decay=0.0), schedule=linear()), device="cpu")  # fmt: skip
    for _ in training:
        pass
    measured = dict(evaluate(training, Partition(tokens, 100, 1)))
    assert measured["perplexity"] < 1.3  # of a guess among all: 54
    said = task.eval().predict({"text": ["Errors should never"]}, length=15, temperature=0.0)["text"]
    assert said == ["Errors should never pass silently."]


def test_a_text_of_words_goes_on_by_words_and_is_drawn(tmp_path):
    words = "<unk> the cat sat on mat <eos>"
    model = build(RecurrentLanguageModel, vocab_size=7, embed_dim=8, hidden_dim=8, cell="lstm", tied=True)
    task = build(LanguageModelling, model=model, alphabet=words, context=20, rows=2, words=True).eval()
    (text,) = task.predict({"text": ["the dog sat"]}, length=5)["text"]
    assert len(text.split()) == 8
    assert text.startswith("the <unk> sat ")
    save(task, tmp_path)
    assert load(tmp_path).predict({"text": ["the dog sat"]}, length=5)["text"] == [text]
    batch = next(iter(Partition(torch.arange(7).repeat(6), 6, 2)))
    task.evaluate(batch)
    drawn = task.figures(batch)
    written = "".join(letter.get_text() for letter in drawn["real text"].axes[0].texts)
    assert written == "the cat sat on mat <eos> <unk> "[: len(written)]
    with pytest.raises(ValueError, match="prompt: empty, expected a text to go on from"):
        task.predict({"text": [" "]})
