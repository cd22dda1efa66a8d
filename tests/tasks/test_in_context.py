"""Learning in context: maps that no training has seen, answers by the prompt alone, more of them right after more examples."""

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.analogies import EVERY, Maps, best, maps, words
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.recipes.memory import in_context_maps
from thalweg.tasks.in_context import InContext
from thalweg.training.loop import Training, evaluate


def table(tokens, signs):
    """The map of a text, as far as it is shown."""
    return {sign: answer - 1 - signs for sign, answer in tokens.unflatten(0, (-1, 2)).tolist()}


@pytest.mark.parametrize("held_out", [True, False])
def test_every_text_has_one_map_and_those_of_tests_are_never_trained_on(held_out):
    batch = maps(300, 60, signs=4, answers=3, seed=0, held_out=held_out)
    assert batch["tokens"].shape == (300, 122)
    assert batch["mask"][0, :4].tolist() == [False, True, False, True]
    found = set()
    for row in batch["tokens"]:
        shown = table(row, 4)  # a later pair that contradicts an earlier one would replace it
        assert all(shown[sign] == answer - 5 for sign, answer in row.unflatten(0, (-1, 2)).tolist())
        if len(shown) == 4:
            found.add(tuple(shown[sign] for sign in range(1, 5)))
    assert {sum(one) % EVERY == 0 for one in found} == {held_out}
    assert len(found) == sum(((a + b + c + d) % EVERY == 0) is held_out for a in range(3) for b in range(3) for c in range(3)
                             for d in range(3))  # fmt: skip


def test_the_best_that_is_possible_is_the_share_of_signs_that_were_shown_and_a_guess_of_the_others():
    batch = maps(20_000, 6, signs=4, answers=3, seed=1, held_out=False)["tokens"].unflatten(1, (-1, 2))
    for shots in (0, 1, 6):
        shown = (batch[:, :shots, 0] == batch[:, shots : shots + 1, 0]).any(1).float().mean()
        assert abs(float(shown + (1 - shown) / 3) - best(shots, 4, 3)) < 0.01


def test_a_pass_is_another_than_the_one_before_and_the_same_when_asked_again():
    stream = Maps(100, 5, 4, 3, 20)
    assert len(stream) == 5
    assert not torch.equal(stream.batch(0)["tokens"], stream.batch(5)["tokens"])
    assert torch.equal(stream.batch(3)["tokens"], stream.batch(3)["tokens"])


@pytest.fixture
def task():
    model = build(RotaryGPT, vocab_size=8, embed_dim=16, num_layers=2, num_heads=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return build(InContext, model=model, shots=4, signs=4, answers=3).double().eval()


def test_the_loss_is_that_of_the_answers_given_all_before_them(task):
    batch = maps(3, 4, 4, 3, 0, held_out=False)
    expected, right = 0.0, torch.zeros(5)
    for row in batch["tokens"]:
        for place in range(1, 10, 2):
            probability = task.model(row[None, :place])[0, -1].softmax(-1)
            expected = expected - probability[row[place]].log()
            right[place // 2] += float(probability.argmax() == row[place]) / 3
    loss, count = task.loss(batch)
    assert count == 15
    for found, naive in zip(torch.autograd.grad(loss, [*task.parameters()]),
                            torch.autograd.grad(expected, [*task.parameters()]), strict=True):  # fmt: skip
        torch.testing.assert_close(found, naive, rtol=0, atol=1e-9)
    assert abs(float(loss.detach() - expected.detach())) < 1e-10
    task.evaluate(batch)
    torch.testing.assert_close(1 - task.metrics["wrong_by_shots"].compute().float(), right)
    assert float(task.metrics["zero_shot"].compute()) == pytest.approx(float(right[0]))
    assert float(task.metrics["one_shot"].compute()) == pytest.approx(float(right[1]))
    assert float(task.metrics["few_shot"].compute()) == pytest.approx(float(right[4]))


def test_a_small_gpt_learns_to_learn_from_its_prompt(tmp_path):
    experiment = in_context_maps(shots=10, signs=4, answers=4, examples=6000, embed_dim=32, batch_size=32)
    training = Training(experiment, device="cpu", precision="fp32")
    for _ in training:
        pass
    told = dict(evaluate(training, experiment.test))
    assert abs(told["zero_shot"] - 1 / 4) < 0.06  # nothing is known of a map that was never seen
    assert abs(told["one_shot"] - best(1, 4, 4)) < 0.06
    assert told["few_shot"] > 0.93 * best(10, 4, 4)
    assert set(training.task.figures(experiment.test.batch(0))) == {"accuracy by shots"}
    save(training.evaluated, tmp_path / "model")
    asked = ["a 0 b 1 c 2 a 0 b", "a 0 b 2 c 1 a 0 b", "c 1 a 1 b 1 c"]
    assert load(tmp_path / "model").predict({"text": asked})["text"] == ["1", "2", "1"]


def test_what_cannot_be_is_refused(task):
    with pytest.raises(ValueError, match="signs=27, answers=3: expected 2 to 26, and 2 to 10"):
        words(27, 3)
    with pytest.raises(ValueError, match="text: 10 words, expected at most 9"):
        task.predict({"text": ["a 0 " * 5]})
    with pytest.raises(ValueError, match="prompt: empty"):
        task.predict({"text": [""]})
