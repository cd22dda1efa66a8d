"""What goes in and what comes out of a sequence: one toy model for each pattern, all from the same sequences of digits."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from thalweg.data.pairs import BOS, EOS, Pairs
from thalweg.models.sequence.reader import Reader
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq

DIGITS = 4


def answer(pattern: str, digits: list[int]) -> list[int]:
    """What is to be said of a sequence of digits below DIGITS."""
    return {
        "one to one": [(digits[0] + 1) % DIGITS],
        "one to many": list(range(digits[0], -1, -1)),  # counts down: the answer has a length of its own
        "many to one": [max(digits)],
        "each a label": [sum(digits[: place + 1]) % DIGITS for place in range(len(digits))],
        "free length": sorted(set(digits)),
    }[pattern]


def pairs(pattern: str, count: int, batch_size: int) -> Pairs:
    """The same sequences for every pattern, cut to one digit where one goes in, each with its answer."""
    draw = torch.Generator().manual_seed(count)
    sources = torch.randint(DIGITS, (count, 5), generator=draw)[:, : 1 if pattern.startswith("one") else None]
    targets = [answer(pattern, row) for row in sources.tolist()]
    return Pairs([row + 4 for row in sources], [torch.tensor([digit + 4 for digit in row] + [EOS]) for row in targets],
                 batch_size, shuffle=True)  # fmt: skip


def share_right(pattern: str, make, said, cost, steps: int) -> float:
    """How many of fresh sequences are answered rightly as a whole, after training."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    stream = pairs(pattern, 4000, 64)
    for number in range(steps):
        optimizer.zero_grad()
        cost(model, stream.batch(number)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    batch = next(iter(pairs(pattern, 500, 500)))
    return said(model.eval(), batch)


def digits_of(batch):
    return one_hot(batch["source_tokens"] - 4, DIGITS).float()


@pytest.mark.parametrize(("pattern", "steps"), [("one to one", 60), ("many to one", 200), ("each a label", 400)])
def test_a_reader_answers_once_or_at_every_place(pattern, steps):
    each = pattern == "each a label"

    def target(batch):
        return batch["target_tokens"][:, 1:-1] - 4 if each else batch["target_tokens"][:, 1] - 4

    def cost(model, batch):
        return cross_entropy(model(digits_of(batch)).flatten(0, -2), target(batch).flatten())

    def said(model, batch):
        return (model(digits_of(batch)).argmax(-1) == target(batch)).float().mean().item()

    def make(**more):
        return Reader(DIGITS, DIGITS, 32, each=each, **more)

    assert share_right(pattern, make, said, cost, steps) > 0.97


@pytest.mark.parametrize(("pattern", "steps"), [("one to many", 150), ("free length", 300)])
def test_a_decoder_writes_answers_of_their_own_length(pattern, steps):
    def cost(model, batch):
        logits = model(batch["source_tokens"], batch["source_mask"], batch["target_tokens"][:, :-1])
        return cross_entropy(logits.flatten(0, 1), batch["target_tokens"][:, 1:].flatten(), ignore_index=0)

    def said(model, batch):
        memory = model.encode(batch["source_tokens"], batch["source_mask"])
        written, longest = torch.full((len(batch["source_tokens"]), 1), BOS), batch["target_tokens"].shape[1]
        for _ in range(longest - 1):
            written = torch.cat([written, model.decode(written, memory)[:, -1:].argmax(-1)], 1)
        return ((written == batch["target_tokens"]) | ~batch["target_mask"]).all(1).float().mean().item()

    def make():
        return AttentionSeq2Seq(4 + DIGITS, 4 + DIGITS, embed_dim=16, hidden_dim=32)

    assert share_right(pattern, make, said, cost, steps) > 0.95


def test_one_that_reads_both_ways_answers_by_what_is_before_and_after():
    x = torch.randn(2, 5, 3, requires_grad=True)
    Reader(3, 2, 4, each=True, bidirectional=True)(x)[0, 2].sum().backward()
    assert x.grad[0].any(1).all()
    x.grad = None
    Reader(3, 2, 4, each=True)(x)[0, 2].sum().backward()
    assert x.grad[0].any(1).tolist() == [True, True, True, False, False]
    model = Reader(3, 2, 4, cell="lstm", bidirectional=True)
    states, _ = model.rnn(x)
    ends = torch.cat([states[:, -1, :4], states[:, 0, 4:]], 1)  # each side where it has read all
    torch.testing.assert_close(model(x), model.head(ends))
    with pytest.raises(ValueError, match="cell='elman'"):
        Reader(3, 2, cell="elman")
