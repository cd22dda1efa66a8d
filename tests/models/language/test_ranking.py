"""Ranking texts by questions, against loops and on real questions; key terms of real news."""

import gzip
import json
from collections import Counter
from math import log
from pathlib import Path

import pytest
import torch

from thalweg.data.pairs import UNK, Words, frequent, separate
from thalweg.models.language.ranking import SCORES, Ranking


def naive(question, texts, by):
    everything = Counter(word for text in texts for word in text)
    total, scores = everything.total(), []
    for text in texts:
        counts, score = Counter(text), 0.0
        for word in question:
            if not everything[word]:
                continue
            p, holding = everything[word] / total, sum(word in other for other in texts)
            if by == "dirichlet":
                score += log((counts[word] + 500 * p) / (len(text) + 500))
            elif by == "jelinek-mercer":
                score += log(0.5 * counts[word] / len(text) + 0.5 * p)
            else:
                longer = len(text) / (total / len(texts))
                rare = log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
                score += rare * counts[word] * 2.2 / (counts[word] + 1.2 * (0.25 + 0.75 * longer))
        scores.append(score)
    return scores


@pytest.mark.parametrize("by", SCORES)
def test_scores_are_their_formulas(by):
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(8, (size,), generator=draw) for size in (5, 9, 3, 12)]
    question = torch.tensor([1, 1, 4, 9, 0])  # 9 is in no text
    found = Ranking(texts, 10).scores(question, by)
    assert found.tolist() == pytest.approx(naive(question.tolist(), [text.tolist() for text in texts], by), abs=1e-10)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="texts: expected at least one, none of them empty; there are 0"):
        Ranking([], 4)
    with pytest.raises(ValueError, match="by='tf': expected one of dirichlet"):
        Ranking([torch.tensor([1])], 4).scores(torch.tensor([1]), "tf")


@pytest.fixture
def paragraphs(data_folder):
    """The 240 paragraphs of XQuAD with their questions; their words, and the paragraphs as they are ranked."""
    content = json.loads(gzip.decompress((Path(data_folder) / "xquad" / "xquad.en.json.gz").read_bytes()))
    found = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    words = Words(frequent((paragraph["context"] for paragraph in found), 1))
    texts = [words.encode(paragraph["context"])[:-1] for paragraph in found]
    return found, words, texts, Ranking(texts, len(words))


def test_a_language_model_of_each_paragraph_finds_where_the_answer_to_a_real_question_is(paragraphs):
    found, words, _, ranking = paragraphs
    rank = {by: list[float]() for by in SCORES}
    for place, paragraph in enumerate(found):
        for asked in paragraph["qas"][:2]:
            question = words.encode(asked["question"])[:-1]
            for by in SCORES:
                scores = ranking.scores(question[question != UNK], by)
                rank[by].append(1 / int((scores >= scores[place]).sum()))
    mean = {by: sum(ranks) / len(ranks) for by, ranks in rank.items()}
    assert len(found) == 240
    assert mean["dirichlet"] > 0.85  # by chance, 0.03
    assert mean["jelinek-mercer"] > 0.85
    assert mean["dirichlet"] > mean["bm25"] - 0.05


def test_key_terms_are_what_people_ask_about_and_frequent_words_are_not(paragraphs):
    found, words, texts, ranking = paragraphs
    usual = {*frequent((asked["question"] for paragraph in found for asked in paragraph["qas"]), 60).split()}  # the, who, ?
    right = Counter[str]()
    for place, paragraph in enumerate(found):
        asked = {word for one in paragraph["qas"] for word in separate(one["question"])} - usual
        often = [token for token, _ in Counter(texts[place].tolist()).most_common(5)]
        for name, terms in (("key", ranking.key_terms(place, 5)), ("frequent", often)):
            right[name] += sum(words.words[term] in asked for term in terms)
    precision = {name: count / (5 * len(found)) for name, count in right.items()}
    assert precision["key"] > 0.5
    assert precision["frequent"] < 0.2
