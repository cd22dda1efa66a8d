"""Word2vec and fastText: their formulas, the compiled descent pair by pair, and what they learn.   D2L 14.1-14.6"""

import pytest
import torch
from torch.nn.functional import logsigmoid, normalize
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.sources import penn_treebank
from thalweg.data.word_windows import WordWindows
from thalweg.models.language.word2vec import Word2Vec
from thalweg.recipes.word_vectors import skipgram_text8
from thalweg.tasks.word_vectors import WordVectors
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adam
from thalweg.training.optimisers.hogwild import hogwild

WORDS = "the cat cats dog dogs sat ran on a"
COUNTS = [20, 5, 3, 5, 3, 2, 2, 4, 9]
BATCH = {
    "tokens": torch.tensor([1, 4, 0, 7], dtype=torch.int32),
    "context": torch.tensor([[-1, 0, 5, -1], [0, 2, 6, 8], [-1, -1, -1, -1], [5, 5, -1, 1]], dtype=torch.int32),
}
METHODS = ["skip-gram", "cbow"]


def model_of(method, objective, subwords=False):
    model = build(Word2Vec, counts=COUNTS, embed_dim=6, method=method, objective=objective, negatives=3,
                  subwords=WORDS if subwords else None, buckets=13).double()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def known_and_told(model):
    """Of each pair what is known, a vector, and the word to tell; by loops."""
    for token, context in zip(BATCH["tokens"], BATCH["context"], strict=True):
        around = [word for word in context if word >= 0]
        if model.method == "skip-gram":
            yield from ((model.embedding(token), word) for word in around)
        elif around:
            yield sum(model.embedding(word) for word in around) / len(around), token


@pytest.mark.parametrize("subwords", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("objective", ["softmax", "hierarchical"])
def test_the_loss_is_its_formula_in_values_and_gradients(method, objective, subwords):
    model = model_of(method, objective, subwords)
    total, count = model.loss(BATCH)
    pairs = [*known_and_told(model)]
    assert count == len(pairs) == (9 if method == "skip-gram" else 3)
    naive = -sum(model.head.log_prob(x)[word] for x, word in pairs)
    assert_close(total.double(), naive.double(), rtol=1e-6, atol=0)
    for one, other in zip(*(torch.autograd.grad(value, [*model.parameters()]) for value in (total, naive)), strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


def drawn(model, word, state):
    """The words that the compiled descent draws for a pair, and the state after."""
    found = []
    for _ in range(model.head.negatives):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(int(model.head.urn[(state >> 33) % len(model.head.urn)]))
    return found, state


@pytest.mark.parametrize("subwords", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("objective", ["negative", "hierarchical"])
def test_the_compiled_descent_is_gradient_descent_on_one_pair_after_the_other(method, objective, subwords):
    model, rate, state = model_of(method, objective, subwords), 0.3, 12345
    twin = model_of(method, objective, subwords)
    twin.load_state_dict(model.state_dict())
    model.descend(BATCH, rate, state)
    for place in range(len([*known_and_told(twin)])):
        x, word = [*known_and_told(twin)][place]  # from where the pairs before have led
        if objective == "hierarchical":
            loss = -twin.head.log_prob(x)[word]
        else:
            against, state = drawn(twin, word, state)
            scores = twin.head.words.weight @ x
            loss = -logsigmoid(scores[word]) - sum(logsigmoid(-scores[other]) for other in against if other != word)
        slopes = torch.autograd.grad(loss, [*twin.parameters()])
        with torch.no_grad():
            for parameter, slope in zip(twin.parameters(), slopes, strict=True):
                parameter -= rate * slope
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-10)


def talk(count=3000):
    """Sentences of beasts and of tools, in which a word stands among those of its kind."""
    kinds = [["cat", "dog", "cats", "dogs", "barks", "purrs"], ["saw", "drill", "saws", "drills", "cuts", "bores"]]
    draw = torch.Generator().manual_seed(0)
    said = []
    for _ in range(count // 10):
        kind = kinds[int(torch.randint(2, (), generator=draw))]
        said += [kind[place] for place in torch.randint(6, (10,), generator=draw).tolist()]
    return said, [*kinds[0], *kinds[1]]


def trained(method, objective, *, pairwise, subwords=False, epochs=6):
    said, words = talk()
    number = {word: place for place, word in enumerate(words)}
    tokens = torch.tensor([number[word] for word in said])
    counts = torch.bincount(tokens).tolist()
    model = build(Word2Vec, counts=counts, embed_dim=8, method=method, objective=objective,
                  subwords=" ".join(words) if subwords else None, buckets=500)  # fmt: skip
    task = build(WordVectors, model=model, words=" ".join(words), measured=[], pairwise=pairwise)
    stream = WordWindows(tokens, counts, 3, 500, threshold=0)
    rate = hogwild(0.1 if method == "skip-gram" else 0.3) if pairwise else adam(0.02)
    training = Training(Experiment(task=task, train=stream, epochs=epochs, optimizer=rate), precision="fp32")
    losses = [float(step.losses[""]) for step in training]
    return task.eval(), losses


def apart(task):
    """How much more alike words of one kind are than words of two."""
    vectors = normalize(task.model.vectors().detach(), dim=-1)
    cosine = vectors @ vectors.T
    inside = (cosine[:6, :6].sum() + cosine[6:, 6:].sum() - 12) / 60
    return float(inside - cosine[:6, 6:].mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("objective", "pairwise"),
    [("negative", True), ("hierarchical", True), ("negative", False), ("softmax", False), ("contrastive", False)],
)
def test_words_that_stand_together_get_vectors_that_point_the_same_way(method, objective, pairwise):
    task, losses = trained(method, objective, pairwise=pairwise)
    assert apart(task) > 0.5
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_word_that_was_never_seen_is_near_its_stem_and_the_folder_keeps_that(tmp_path):
    task, _ = trained("skip-gram", "negative", pairwise=True, subwords=True)
    save(task, tmp_path)
    kept = load(tmp_path)
    assert kept.predict({"text": ["dogged"]}) == task.predict({"text": ["dogged"]})
    for unseen, kind in (("dogged", {"dog", "dogs"}), ("drilling", {"drill", "drills"})):
        assert set(kept.predict({"text": [unseen]}, count=2)["word"][0]) <= kind | {"cats", "cat", "purrs", "barks"}
        assert kept.predict({"text": [unseen]}, count=1)["word"][0][0] in kind
    plain, _ = trained("skip-gram", "negative", pairwise=True, epochs=1)
    with pytest.raises(ValueError, match=r"'dogged' is none of the 12 words known, such as dog"):
        plain.predict({"text": ["dogged"]})


def test_another_method_or_objective_is_refused():
    with pytest.raises(ValueError, match="method='bag', objective='negative'"):
        Word2Vec(COUNTS, method="bag")
    with pytest.raises(ValueError, match="pair by pair go negative and hierarchical"):
        model_of("cbow", "softmax").descend(BATCH, 0.1, 0)


def test_one_hot_words_are_all_equally_unlike_and_learned_vectors_are_not():
    words = torch.nn.functional.one_hot(torch.arange(12)).float()
    assert torch.equal(words @ words.T, torch.eye(12))
    task, _ = trained("skip-gram", "negative", pairwise=True)
    vectors = normalize(task.model.vectors().detach(), dim=-1)
    assert (vectors @ vectors.T)[~torch.eye(12, dtype=torch.bool)].std() > 0.3
    assert vectors.shape[1] < words.shape[1]


@pytest.mark.slow
def test_what_stands_near_a_chip_has_to_do_with_computing(data_folder, tmp_path):
    """D2L 14.4 on the Wall Street Journal."""
    (tmp_path / "wsj.txt").write_text(" ".join(penn_treebank()[0]).replace("<unk>", "").replace("<eos>", ""))
    experiment = skipgram_text8(data=tmp_path / "wsj.txt", epochs=15, lr=0.05)
    training = Training(experiment, precision="fp32", device="cpu")
    for _ in training:
        pass
    near = training.task.predict({"text": ["chip"]}, count=10)["word"][0]
    computing = {"chips", "intel", "semiconductor", "semiconductors", "computer", "computers", "microprocessor", "motorola",
                 "microprocessors", "memory", "dram", "processor", "processors", "workstation", "workstations", "software",
                 "ibm", "laptop", "machines", "machine", "disk", "compaq", "mainframe", "mainframes", "mips"}  # fmt: skip
    assert len(computing & set(near)) >= 4, near
    others = training.task.predict({"text": ["wine"]}, count=10)["word"][0]
    assert len(computing & set(others)) <= 1, others
