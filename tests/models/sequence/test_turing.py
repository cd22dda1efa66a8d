"""The Neural Turing Machine: how a head is moved, what is written and read, and a program by hand that copies."""

import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.testing import assert_close

from thalweg.models.sequence.turing import EMPTY, NeuralTuringMachine, address


def test_a_head_is_moved_by_content_by_place_by_a_step_and_is_sharp_again():
    key, memory, before = numbers(2, 4), numbers(2, 6, 4), torch.rand(2, 6).double().softmax(-1)
    raw = numbers(2, 1), numbers(2, 1), numbers(2, 3), numbers(2, 1)

    def said():
        return raw[0].exp(), raw[1].sigmoid(), raw[2].softmax(-1), 1 + raw[3].exp()

    strength, gate, shift, sharpness = said()
    rows = []
    for n in range(2):
        score = torch.stack([strength[n, 0] * key[n] @ m / (key[n].norm() * m.norm()) for m in memory[n]])
        a = gate[n] * score.softmax(0) + (1 - gate[n]) * before[n]
        a = torch.stack([sum(a[(i - j) % 6] * shift[n, 1 + j] for j in (-1, 0, 1)) for i in range(6)])
        rows.append(a ** sharpness[n] / (a ** sharpness[n]).sum())
    equal_with_gradients(address(key, *said(), memory, before), torch.stack(rows), [key, memory, *raw])


def test_a_step_writes_then_reads_and_answers():
    model, x = NeuralTuringMachine(3, 2, 5, places=4, width=3).double(), numbers(2, 3)
    start = model.start(2)
    assert (start.memory == EMPTY).all()
    assert start.reader.tolist() == [[1.0, 0, 0, 0]] * 2
    _, before = model.step(torch.randn(2, 3, dtype=torch.float64), start)
    answer, after = model.step(x, before)
    hidden = model.controller(torch.cat([x, before.read], 1))
    writer, (erase, added) = model.writer(hidden, before.memory, before.writer)
    for n in range(2):
        for i in range(4):
            kept = before.memory[n, i] * (1 - writer[n, i] * erase[n].sigmoid())
            assert_close(after.memory[n, i], kept + writer[n, i] * added[n].tanh(), **EXACT)
        read = sum(after.reader[n, i] * after.memory[n, i] for i in range(4))
        assert_close(answer[n], model.head(torch.cat([hidden[n], read])), **EXACT)
    assert_close(after.reader.sum(1), torch.ones(2).double(), **EXACT)
    answers, heads = model(torch.stack([x, x], 1))
    assert_close(answers[:, 0], model.step(x, start)[0], **EXACT)
    assert heads.shape == (2, 2, 2, 4)


def test_a_head_told_to_step_goes_round_the_memory():
    memory, place = torch.randn(1, 5, 3), torch.eye(5)[:1]
    seen = []
    for _ in range(6):
        step = torch.tensor([[0.0, 0.0, 1.0]])  # forward
        place = address(torch.ones(1, 3), torch.ones(1, 1), torch.zeros(1, 1), step, torch.ones(1, 1), memory, place)
        seen.append(int(place.argmax()))
    assert seen == [1, 2, 3, 4, 0, 1]
