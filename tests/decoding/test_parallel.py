"""Decoding in parallel against the rules in words, a place at a time."""

import pytest
import torch
from torch import nn

from thalweg.decoding.parallel import ignore_after_end, mask_predict, refine, rescore
from thalweg.models.sequence.transformer import Transformer

PAD, BOS, EOS = 0, 1, 2
UP_TO = torch.arange(6)


class Reads(nn.Module):
    """Logits of a place that depend on all tokens of its row, as a model's would."""

    def __init__(self, vocab_size=9):
        super().__init__()
        self.table, self.mix = torch.randn(vocab_size, 8, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)
        self.head, self.asked = torch.randn(8, vocab_size, dtype=torch.float64), []

    def forward(self, tokens, mask):
        self.asked.append(tokens.clone())
        time = tokens.shape[1]
        x = self.table[tokens] * mask[..., None]
        return (self.mix[:time, :time] @ x).tanh() @ self.head


def naive_mask_predict(words, length, iterations):
    tokens, score = [BOS] * length, [0.0] * length
    for i in range(iterations):
        count = length * (iterations - i) // iterations
        hidden = sorted(range(length), key=lambda t: score[t])[:count]
        read = [BOS if t in hidden else token for t, token in enumerate(tokens)]
        said = words(torch.tensor([read]), torch.ones(1, length, dtype=torch.bool))[0].log_softmax(-1)
        for t in hidden:
            tokens[t], score[t] = int(said[t].argmax()), float(said[t].max())
    return tokens, score


@pytest.mark.parametrize("iterations", [1, 3, 4, 10])
def test_mask_predict_hides_the_least_sure_words_and_writes_them_again(iterations):
    words, lengths = Reads(), [6, 1, 4, 5]
    mask = torch.tensor(lengths)[:, None] > UP_TO
    tokens, score = mask_predict(words, mask, iterations, unwritten=BOS, pad=PAD)
    for row, said, length in zip(tokens, score, lengths, strict=True):
        expected, sure = naive_mask_predict(words, length, iterations)
        assert row.tolist() == expected + [PAD] * (6 - length)
        assert said[:length].tolist() == pytest.approx(sure, abs=1e-5)
        assert not said[length:].any()


def test_refinement_is_a_chain_of_the_most_probable_words():
    words, mask = Reads(), torch.tensor([[6], [3]]) > UP_TO
    start = torch.where(mask, BOS, PAD)
    expected = start
    for _ in range(3):
        logits = words(expected, mask).log_softmax(-1)
        expected = logits.argmax(-1) * mask
    tokens, score = refine(words, start, mask, 3, pad=PAD)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(score.double(), logits.max(-1).values * mask, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decode", [mask_predict, refine])
def test_no_pass_is_refused(decode):
    mask = torch.ones(1, 6, dtype=torch.bool)
    arguments = (Reads(), mask, 0) if decode is mask_predict else (Reads(), mask.long(), mask, 0)
    with pytest.raises(ValueError, match="iterations=0"):
        decode(*arguments, pad=PAD, **({"unwritten": BOS} if decode is mask_predict else {}))


def test_what_follows_the_first_end_is_ignored():
    tokens = torch.tensor([[4, 5, EOS, 6, EOS, 7], [EOS, 4, 4, 4, 4, 4], [4, 5, 6, 7, 8, 3]])
    assert ignore_after_end(tokens, EOS, PAD).tolist() == [[4, 5, 0, 0, 0, 0], [0] * 6, [4, 5, 6, 7, 8, 3]]


def test_a_teacher_scores_a_finished_target_as_its_beam_search_does():
    teacher = Transformer(9, 7, embed_dim=8, num_layers=1, num_heads=2).eval()
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.6)
    source, mask = torch.randint(9, (3, 4)), torch.arange(4) < torch.tensor([[4], [2], [3]])
    targets = torch.randint(3, 7, (3, 5, 6)) * (torch.randint(1, 7, (3, 5, 1)) > UP_TO)
    judged = rescore(teacher, source, mask, targets, bos=BOS, eos=EOS, pad=PAD, length_penalty=0.6)
    for number in range(3):
        for row, score in zip(targets[number].tolist(), judged[number], strict=True):
            words, total = [BOS, *(token for token in row if token), EOS], 0.0
            for t in range(1, len(words)):
                said = teacher(source[number, None], mask[number, None], torch.tensor([words[:t]]))[0, -1]
                total += float(said.log_softmax(-1)[words[t]])
            assert float(score) == pytest.approx(total / (len(words) - 1) ** 0.6, abs=1e-4)
