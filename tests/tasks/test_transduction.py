"""Sequence transduction: the loss of teacher forcing, own guesses read and written, errors by place, a small task learned."""

import pytest
import torch
from dates import dates
from strokes import strokes, written_by

from thalweg.build import build, load, save
from thalweg.data.pairs import BOS, EOS, PAD, UNK, Pairs, Words, frequent
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.losses import guided_attention
from thalweg.metrics import ROUGE, SacreBLEU
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq, Seq2Seq
from thalweg.recipes.translation import copying_dialogues
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

SOURCE, TARGET = "they are watching .", "ils regardent . va"


def small(make=AttentionSeq2Seq, **arguments):
    size = {"source_vocab_size": 8, "target_vocab_size": 8, "embed_dim": 8, "hidden_dim": 8}
    task = build(Transduction, model=build(make, **size), source_words=SOURCE, target_words=TARGET, longest=6, **arguments)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return task.eval()


def batch(*pairs):
    source, target = Words(SOURCE), Words(TARGET)
    stream = Pairs([source.encode(one) for one, _ in pairs], [target.encode(other) for _, other in pairs], 8)
    return next(iter(stream))


@pytest.mark.parametrize("make", [Seq2Seq, AttentionSeq2Seq])
def test_the_loss_with_all_places_at_once_is_that_of_one_place_after_the_other(make):
    task = small(make)
    seen = batch(("they are watching .", "ils regardent ."), ("watching", "va"))
    total, terms = 0.0, 0
    for source, mask, target, real in zip(*seen.values(), strict=True):
        words = target[real].tolist()
        for t in range(1, len(words)):
            logits = task.model(source[None, mask], mask[None, mask], torch.tensor([words[:t]]))[0, -1]
            total, terms = total - logits.log_softmax(-1)[words[t]].item(), terms + 1
    loss, count = task.loss(seen)
    assert int(count) == terms == 4 + 2
    assert loss.item() == pytest.approx(total, rel=1e-5)


class Successor(torch.nn.Module):
    """Says of every token, with certainty, that the next one is its number plus one, whatever the source."""

    def encode(self, source_tokens, source_mask):
        return source_tokens

    def new_cache(self, memory, copies, time):
        return []

    def decode(self, target_tokens, memory, cache=None):
        return 1000.0 * torch.nn.functional.one_hot((target_tokens + 1).clamp(3, 7), 8).float()

    def forward(self, source_tokens, source_mask, target_tokens):
        return self.decode(target_tokens, source_tokens)


def counting(*targets):
    """A batch of these targets, <bos> and <eos> around them."""
    tokens = torch.tensor([[BOS, *target, EOS] for target in targets])
    source = torch.full((len(targets), 1), EOS)
    return {"source_tokens": source, "source_mask": source > 0, "target_tokens": tokens, "target_mask": tokens > 0}


def test_the_truth_is_read_in_training_and_own_words_in_use():
    task = Transduction(Successor(), SOURCE, TARGET, longest=4)
    seen = counting([3, 5, 6])
    assert task.train().loss(seen)[0] == pytest.approx(2000)  # 5 after 3, and the end after 6
    task.eval().evaluate(seen)
    assert task.metrics["forced_error"].compute().tolist() == [0, 1, 0, 1]
    assert task.metrics["free_error"].compute().tolist() == [0, 1, 1, 1]  # it wrote 4 and 5 after 3
    assert task.metrics["exposure_bias"].compute() == pytest.approx(1 / 4)
    assert task.metrics["accuracy"].compute() == pytest.approx(1 / 2)


def test_with_scheduled_sampling_own_guesses_are_read_in_training_alone():
    task, seen = Transduction(Successor(), SOURCE, TARGET, own=1.0), counting([3, 5, 6])
    assert task.eval().loss(seen)[0] == pytest.approx(2000)
    # it reads 3, then its guesses 4 after 3 and 6 after 5: 5 is right after 4, 6 after 4 is not ... as it says in both passes
    read = [3, 4, 6]
    said = [3, *(min(token + 1, 7) for token in read)]
    wrong = sum(guess != word for guess, word in zip(said, [3, 5, 6, EOS], strict=True))
    assert task.train().loss(seen)[0] == pytest.approx(1000 * wrong)
    assert Transduction(Successor(), SOURCE, TARGET).train().loss(seen)[0] == pytest.approx(2000)


def test_errors_end_where_a_target_ends():
    task = Transduction(Successor(), SOURCE, TARGET, longest=3)
    one, other = counting([3, 4, 6]), counting([3])
    pad = torch.nn.functional.pad(other["target_tokens"], (0, 2), value=PAD)
    both = {name: torch.cat([one[name], other[name]]) for name in ("source_tokens", "source_mask")}
    tokens = torch.cat([one["target_tokens"], pad])
    task.eval().evaluate({**both, "target_tokens": tokens, "target_mask": tokens != PAD})
    # the second is right at 3 and wrong at its end; what is longer than `longest` counts nowhere by place
    assert task.metrics["forced_error"].compute().tolist() == [0, 0.5, 1]
    assert task.metrics["free_error"].compute().tolist() == [0, 0.5, 1]


def test_a_saved_task_translates_the_same(tmp_path):
    task = small()
    save(task, tmp_path)
    texts = {"text": ["They are watching.", "go"]}
    assert load(tmp_path).predict(texts) == task.predict(texts)


def test_a_text_is_translated_as_if_it_were_alone():
    task = small()
    together = task.predict({"text": ["They are watching.", "they"]}, show_alignment=True)
    alone = task.predict({"text": ["they"]}, show_alignment=True)
    assert together["text"][1] == alone["text"][0]
    torch.testing.assert_close(together["alignment"][1], alone["alignment"][0])
    assert alone["alignment"][0].shape[1] == 2
    torch.testing.assert_close(alone["alignment"][0].sum(1), torch.ones(len(alone["alignment"][0])))


def in_subwords(**arguments):
    tokenizer = learn_subwords(["They are watching .", "Ils regardent ."] * 3, 270)
    size = {"source_vocab_size": 270, "target_vocab_size": 270, "embed_dim": 8, "hidden_dim": 8}
    task = build(Transduction, model=build(AttentionSeq2Seq, **size), tokenizer=tokenizer, longest=9, **arguments)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return task.eval(), Subwords(tokenizer)


def test_a_saved_task_keeps_its_subwords_and_tells_them_in_an_alignment(tmp_path):
    task, subwords = in_subwords()
    save(task, tmp_path)
    texts = {"text": ["They are Füße .", "go"]}
    again = load(tmp_path).predict(texts, show_alignment=True)
    assert again["text"] == task.predict(texts)["text"]
    for text, written, looked, (source, target) in zip(texts["text"], *again.values(), strict=True):
        assert len(subwords.encode(text)) == len(source) == looked.shape[1]
        assert looked.shape[0] == len(target) <= 9
        assert source[-1] == "<eos>"
        assert written.startswith(target[0]) or target[0] in ("<eos>", "\ufffd", "<bos>", "<unk>", "<pad>")
    axis = task.draw(texts, again).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == again["pieces"][0][0]


def test_what_is_measured_is_written_by_the_beam_asked_for_and_compared_as_text():
    (task, subwords), (wide, _) = in_subwords(), in_subwords(beam=3, length_penalty=0.0)
    wide.load_state_dict(task.state_dict())
    tokens = [[subwords.encode(text)] for text in ("They are watching .", "Ils regardent .")]
    seen = next(iter(Pairs(*tokens, 1)))
    for each, beam, length_penalty in ((task, 1, 0.75), (wide, 3, 0.0)):
        each.evaluate(seen)
        text = each.predict({"text": ["They are watching ."]}, beam=beam, length_penalty=length_penalty)["text"]
        lone = SacreBLEU()
        lone.update(text, [["Ils regardent ."]])
        assert torch.equal(each.metrics["sacrebleu"].numerator, lone.numerator)
        assert torch.equal(each.metrics["sacrebleu"].denominator, lone.denominator)
        assert int(each.metrics["sacrebleu"].target_len) == 3
    assert "bleu" not in task.metrics


def test_a_smoothed_target_is_shared_by_all_tokens_in_training_and_by_none_where_it_is_measured():
    task, _ = in_subwords(label_smoothing=0.2)
    seen = counting([3, 5])
    logs = task.model(seen["source_tokens"], seen["source_mask"], seen["target_tokens"][:, :-1])[0].log_softmax(-1)
    right = logs[[0, 1, 2], [3, 5, EOS]]
    assert task.loss(seen)[0].item() == pytest.approx(-(0.8 * right + 0.2 * logs.mean(1)).sum().item(), rel=1e-5)
    task.evaluate(seen)
    assert task.metrics["loss"].compute().item() == pytest.approx(-right.mean().item(), rel=1e-5)


def test_words_or_a_tokenizer_are_needed_and_not_both():
    for arguments in ({}, {"source_words": SOURCE}, {"source_words": SOURCE, "target_words": TARGET, "tokenizer": "{}"}):
        with pytest.raises(ValueError, match="expected both of the first, or the last"):
            Transduction(Successor(), **arguments)


def test_an_alignment_is_drawn_where_it_was_asked_for_and_there_is_one():
    task, texts = small(), {"text": ["they are ."]}
    assert task.draw(texts, task.predict(texts)) is None
    predicted = task.predict(texts, show_alignment=True)
    axis = task.draw(texts, predicted).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["they", "are", ".", "<eos>"]
    words = [label.get_text() for label in axis.get_yticklabels()]
    assert words[: len(predicted["text"][0].split())] == predicted["text"][0].split()
    with pytest.raises(ValueError, match="show_alignment: Seq2Seq does not look back"):
        small(Seq2Seq).predict(texts, show_alignment=True)


def learned(make, steps, own=0.0, **arguments):
    """Metrics after a short training on dates, and the task."""
    train, valid = dates(2000, 1), dates(300, 2)
    known = [frequent((pair[side] for pair in train), 1) for side in (0, 1)]
    words = [Words(text) for text in known]
    model = build(make, source_vocab_size=len(words[0]), target_vocab_size=len(words[1]), dropout=0.0, **arguments)
    encoded = [[[words[side].encode(pair[side]) for pair in part] for side in (0, 1)] for part in (train, valid)]
    experiment = Experiment(
        task=build(
            Transduction, model=model, source_words=known[0], target_words=known[1], longest=12, own=own, own_steps=steps // 2
        ),
        train=Pairs(*encoded[0], 64, shuffle=True),
        valid=Pairs(*encoded[1], 300),
        steps=steps,
        optimizer=adamw(0.01),
        schedule=warmup(0.1, linear()),
        clip=1.0,
    )
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    return dict(evaluate(training, experiment.valid)), experiment


def test_dates_are_learned_and_the_attention_looks_where_they_stand():
    metrics, experiment = learned(AttentionSeq2Seq, 300, embed_dim=32, hidden_dim=48)
    assert metrics["accuracy"] > 0.9
    assert metrics["bleu"] > 0.75
    assert metrics["exposure_bias"] < 0.1
    drawn = experiment.task.eval().figures(next(iter(experiment.valid)))
    assert sorted(drawn) == ["alignment", "error by place"]
    asked = {"text": ["17 / 11 / 1984"]}
    looked = experiment.task.predict(asked, show_alignment=True)["alignment"][0]
    # the day stands first in the source and last in the target, the year the other way round
    assert looked[:4, 3:].sum(1).mean() > 0.6
    assert looked[8:10, :3].sum(1).mean() > 0.6


def pen(steps, guided=0.0, **arguments):
    """The task after a short training on letters and the strokes that write them, and a stream of other such texts."""
    train, valid = strokes(1000, 2, 6, 1), strokes(200, 2, 6, 2)
    known = [frequent((pair[side] for pair in train), 1) for side in (0, 1)]
    source, target = (Words(text) for text in known)
    model = build(AttentionSeq2Seq, source_vocab_size=len(source), target_vocab_size=len(target), embed_dim=32, hidden_dim=48,
                  dropout=0.0, **arguments)  # fmt: skip
    task = build(Transduction, model=model, source_words=known[0], target_words=known[1], longest=60, guided=guided)

    def stream(pairs, batch_size, shuffle=False):
        return Pairs([source.encode(one) for one, _ in pairs], [target.encode(other) for _, other in pairs], batch_size,
                     shuffle=shuffle)  # fmt: skip

    experiment = Experiment(task=task, train=stream(train, 64, shuffle=True), valid=stream(valid, 200), steps=steps,
                            optimizer=adamw(0.01), schedule=warmup(0.1, linear()), clip=1.0)  # fmt: skip
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    return task.eval(), next(iter(experiment.valid))


def test_a_window_that_only_moves_on_follows_the_pen_through_longer_texts_than_it_has_seen():
    task, _ = pen(150, attention="monotone")
    longer = strokes(60, 8, 10, 3)
    predicted = task.predict({"text": [letters for letters, _ in longer]}, beam=1, show_alignment=True)
    assert sum(text == traced for text, (_, traced) in zip(predicted["text"], longer, strict=True)) > 54
    hits, back = [], []
    for (letters, traced), text, looked in zip(longer, predicted["text"], predicted["alignment"], strict=True):
        seen = looked[:-1].argmax(1)
        back.append((seen.diff() < 0).float().mean())
        if text == traced:
            hits.append((seen == torch.tensor(written_by(letters))).float().mean())
    assert torch.stack(hits).mean() > 0.75
    assert torch.stack(back).mean() < 0.05  # where the highest of several curves is may jump, though each of them moves on


@pytest.mark.parametrize("seed", [0, 1])
def test_attention_that_is_guided_finds_the_diagonal_in_steps_in_which_another_does_not(seed):
    away = {}
    for guided in (0.0, 1.0):
        torch.manual_seed(seed)
        task, seen = pen(60, guided=guided)
        with torch.no_grad():
            looked = task.model.alignment(seen["source_tokens"], seen["source_mask"], seen["target_tokens"][:, :-1])
        total, count = guided_attention(looked, seen["target_mask"][:, 1:], seen["source_mask"])
        away[guided] = float(total / count)
    assert away[1.0] < 0.7 * away[0.0]


def test_names_that_nobody_has_heard_before_are_said_again():
    experiment = copying_dialogues(epochs=2)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    task = experiment.task.eval()
    said = {"text": ["Hi, I am Thalweg.", "Galadriel, do you know Frodo?", "This is Xu and that is O'Neill."]}
    answers = ["nice to meet you , thalweg !", "no , galadriel , who is frodo ?", "hello xu , hello o'neill !"]
    assert task.predict(said)["text"] == answers
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.99
    known = " ".join(task.source.number)
    assert not {"thalweg", "galadriel", "frodo", "xu", "o'neill"} & {*known.split()}
    looked, (source, target) = (task.predict(said, show_alignment=True)[name][0] for name in ("alignment", "pieces"))
    assert source[looked[target.index("thalweg")].argmax()] == "thalweg"


def test_what_strangers_and_guidance_need_is_said():
    with pytest.raises(ValueError, match="strangers=1: expected source_words and target_words to be the same"):
        small(strangers=1)
    with pytest.raises(ValueError, match=r"guided=0\.5: Seq2Seq has no attention to guide"):
        small(Seq2Seq, guided=0.5)


@pytest.mark.slow
def test_who_reads_own_guesses_in_training_errs_less_for_having_erred():
    bias = {}
    for own in (0.0, 0.5):
        for seed in range(3):
            torch.manual_seed(seed)
            metrics, _ = learned(Seq2Seq, 300, own=own, embed_dim=24, hidden_dim=48, num_layers=1)
            bias[own, seed] = float(metrics["exposure_bias"])
            assert metrics["accuracy"] > 0.9
    assert all(bias[0.5, seed] < 0.7 * bias[0.0, seed] for seed in range(3))


def rouge(said, right, size):
    """F1 of the n-grams that two texts share, or of the longest common subsequence (size 0), by the definition."""

    def common(one, other):
        if not one or not other:
            return 0
        if one[0] == other[0]:
            return 1 + common(one[1:], other[1:])
        return max(common(one[1:], other), common(one, other[1:]))

    def grams(text):
        return [tuple(text[place : place + size]) for place in range(len(text) - size + 1)] if size else text

    ours, theirs = grams(said.split()), grams(right.split())
    shared = sum(min(ours.count(one), theirs.count(one)) for one in {*ours}) if size else common(ours, theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def test_rouge_is_its_definition():
    pairs = [("a b c d e", "b d e a"), ("a a b", "a c a b"), ("c", "d"), ("a b c", "a b c")]
    for name, size in (("rouge1", 1), ("rouge2", 2), ("rougeL", 0)):
        metric = ROUGE(name)
        for said, right in pairs:
            metric.update(said, right)
        expected = sum(rouge(said, right, size) for said, right in pairs) / len(pairs)
        assert abs(float(metric.compute()) - expected) < 1e-6


KNOWN = "a b c d"


def small_copying(**arguments):
    model = build(AttentionSeq2Seq, source_vocab_size=10, target_vocab_size=10, embed_dim=8, hidden_dim=8, dropout=0.0,
                  copies=True, strangers=2)  # fmt: skip
    return build(Transduction, model=model, source_words=KNOWN, target_words=KNOWN, strangers=2, longest=6, **arguments)


def heard(source, target):
    """A batch of pairs whose unknown words are strangers."""
    who = [Words(KNOWN, 2).hearing(text) for text in source]
    sides = ([one.encode(text) for one, text in zip(who, side, strict=True)] for side in (source, target))
    return next(iter(Pairs(*sides, len(source))))


def test_an_unknown_word_that_cannot_be_copied_is_no_target_and_is_never_written():
    task, batch = small_copying(), heard(["a x b", "c d"], ["x y a", "d"])
    source = batch["source_tokens"], batch["source_mask"]
    logits, total, count = task.model(*source, batch["target_tokens"][:, :-1]), 0.0, 0
    for row, target in enumerate(batch["target_tokens"][:, 1:].tolist()):
        for place, token in enumerate(target):
            if token not in (PAD, UNK):
                total, count = total - torch.log_softmax(logits[row, place], 0)[token], count + 1
    ours, terms = task.loss(batch)
    assert terms == count == 5  # x a <eos>, d <eos>
    torch.testing.assert_close(ours, total)
    with torch.no_grad():
        task.model.head.bias[UNK] = 50.0  # which makes it by far the most probable
    assert (task.model(*source, batch["target_tokens"][:, :-1]).argmax(-1) == UNK).any()
    for beam in (1, 3):
        assert not (task.write(*source, beam, 0.75) == UNK).any()


def test_a_summary_is_measured_beside_the_first_sentence():
    class Writing(Transduction):
        def write(self, source_tokens, source_mask, beam, length_penalty):
            return torch.tensor([[4, 8, EOS], [6, EOS, PAD]])[: len(source_tokens)]

    batch = heard(["a x . b", "c d"], ["a y x", "c d"]) | {"lead": torch.tensor([2, 1])}
    task = Writing(small_copying().model, KNOWN, KNOWN, longest=6, strangers=2, summaries=True)
    with torch.no_grad():
        task.evaluate(batch)
    found = {name: float(value) for name, value in task.metrics.compute().items() if "rouge" in name}
    # "a <unk0>" of "a <unk> <unk0>", an unknown word that nobody can write; "c" of "c d"
    expected = {"rouge1": (4 / 5 + 2 / 3) / 2, "rouge2": 0.0, "rougeL": (4 / 5 + 2 / 3) / 2}
    assert found == pytest.approx(expected | {f"lead_{name}": value for name, value in expected.items()}, abs=1e-6)
    assert "summaries" in task.figures(batch)
