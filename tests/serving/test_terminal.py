"""`thalweg generate`, `thalweg chat` and `thalweg probe`: as a person types them."""

import json

import pytest
import torch
from tiny_writer import folder, writer

from thalweg.build import build, save
from thalweg.cli import main
from thalweg.data.headlines import headlines, lead
from thalweg.data.probes import probes, prompted
from thalweg.decoding.sampling import complete
from thalweg.metrics import ROUGE
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.tasks.language_modelling import LanguageModelling

PLAIN = ["--device", "cpu", "--weights", "fp32", "--temperature", "0", "--max-new-tokens", "15"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("models") / "tiny", context=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a language model of letters."""
    torch.manual_seed(0)
    model = build(RotaryGPT, vocab_size=5, embed_dim=16, num_layers=1, num_heads=2)
    path = tmp_path_factory.mktemp("run")
    save(build(LanguageModelling, model=model, alphabet="\nabcd", context=8), path / "model")
    return path, model


def test_a_text_is_gone_on_with(tiny, capsys):
    main(["generate", str(tiny), "the way", *PLAIN])
    who = writer()
    wanted = "".join(who.write(who.tokens.encode("the way"), temperature=0, max_new_tokens=15))
    assert capsys.readouterr().out == wanted + "\n"


def test_a_run_of_ours_goes_on_beyond_its_context(run, capsys):
    path, model = run
    main(["generate", str(path), "abc", "--temperature", "0", "--max-new-tokens", "20"])
    wanted = complete(model, [torch.tensor([1, 2, 3])], 20, context=8)[0][3:]
    assert capsys.readouterr().out == "".join("\nabcd"[token] for token in wanted) + "\n"


def test_a_chat_remembers_its_turns_until_an_empty_line(tiny, monkeypatch, capsys):
    lines = iter(["the river", "the way", "", "the way"])

    def typed(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    main(["chat", str(tiny), *PLAIN, "--system", "x"])
    shown = capsys.readouterr().out
    who, turns, wanted = writer(context=200), [{"role": "system", "content": "x"}], []
    for said in ("the river", "the way", None, "the way"):
        if said is None:
            turns = turns[:1]
            continue
        turns.append({"role": "user", "content": said})
        answer = "".join(who.write(who.tokens.chat(turns), temperature=0, max_new_tokens=15))
        turns.append({"role": "assistant", "content": answer})
        wanted.append(answer)
    assert shown.partition("\n")[2] == "".join(answer + "\n" for answer in wanted) + "\n"
    assert len(set(wanted)) == 3


def test_a_chat_that_has_grown_too_long_says_so_and_goes_on(tiny, monkeypatch, capsys):
    lines = iter(["the " * 250, "the way"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    main(["chat", str(tiny), *PLAIN])
    said = capsys.readouterr().out.splitlines()
    assert "expected 1 to 199 for context=200; an empty line starts afresh" in said[1]
    assert len(said) > 2


@pytest.fixture
def questions(tmp_path):
    """Four questions about letters, the second answer right."""
    lines = [{"question": f"{letter}b\n", "answers": ["ac", "b"], "right": 1} for letter in "abcd"]
    (tmp_path / "letters.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(tmp_path / "letters.jsonl")


@pytest.mark.parametrize("shots", [0, 2])
def test_questions_are_answered_by_what_is_most_probable(questions, tmp_path, shots, capsys):
    model = build(RotaryGPT, vocab_size=5, embed_dim=16, num_layers=1, num_heads=2)
    read = {letter: number for number, letter in enumerate("\nabcd")}
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    task = build(LanguageModelling, model=model, alphabet="\nabcd", context=64)
    save(task, tmp_path / "model")
    main(["probe", str(tmp_path), questions, "--shots", str(shots), "--seed", "3"])
    right = 0
    for place in range(4):
        prompt = prompted(probes(questions), place, shots, 3)
        score = {}
        for answer in "ac", "b":
            tokens = torch.tensor([[read[letter] for letter in prompt + answer]])
            said = model(tokens[:, :-1]).log_softmax(-1).gather(2, tokens[:, 1:, None])[0, :, 0]
            score[answer] = said[len(prompt) - 1 :].sum()
        right += bool(score["b"] > score["ac"])
    share = right / 4
    error = (share * (1 - share) / 4) ** 0.5
    said = f"4 questions; by chance 50.0%\n{shots} shots: {share:.1%} right, standard error {error:.1%}\n"
    assert capsys.readouterr().out == said


def test_a_public_model_is_asked_too_and_as_often_as_one_likes(tiny, questions, capsys):
    main(["probe", str(tiny), questions, "--shots", "0,1,3", "--limit", "4", "--per-token", "--weights", "fp32"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 questions; by chance 50.0%"
    assert [line.split(":")[0] for line in said[1:]] == ["0 shots", "1 shot", "3 shots"]


def test_what_has_one_answer_is_written_and_compared_with_it(tiny, tmp_path, capsys):
    lines = [{"question": f"the {word} is", "answers": [f"{word} river"], "right": 0} for word in ("way", "valley", "water")]
    (tmp_path / "open.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = probes(str(tmp_path / "open.jsonl"))
    main(["probe", str(tiny), str(tmp_path / "open.jsonl"), "--shots", "0,2", "--weights", "fp32", "--device", "cpu"])
    said = capsys.readouterr().out.split("\n")  # what nobody taught to write writes line separators of other scripts too
    assert said[0] == "3 questions, each to be answered in a line"
    for shots, block in ((0, said[1:5]), (2, said[5:9])):
        who, metric, written = writer(context=200), ROUGE("rouge1"), []
        for place, one in enumerate(asked):
            prompt = who.tokens.encode(prompted(asked, place, shots, 0))
            written.append("".join(who.write(prompt, temperature=0, max_new_tokens=40, stop=["\n"])).strip())
            metric.update(written[-1], one.answers[0])
        assert block[0].startswith(f"{shots} shots: rouge1 {float(metric.compute()):.3f}, rouge2 ")
        assert block[1:] == [f"    {line}   (right: {one.answers[0]})" for line, one in zip(written, asked, strict=True)]


def test_news_are_compared_with_their_first_sentences_too(tmp_path, data_folder, capsys):
    long = folder(tmp_path / "tiny", context=400)  # a byte a token
    main(["probe", str(long), "headlines", "--limit", "2", "--weights", "fp32", "--device", "cpu"])
    said = capsys.readouterr().out.splitlines()
    metric = ROUGE("rouge1")
    for text, title in headlines().test[:2]:
        metric.update(lead(text), title)
    assert said[1].startswith(f"lead-1: rouge1 {float(metric.compute()):.3f}, rouge2 ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["generate", "/nowhere", "x"], "/nowhere: neither a folder or file here nor an id"),
        (["generate", "TINY", "x", "--top-p", "3"], "top_p=3.0: expected a number in"),
        (["generate", "TINY", "x", "--weights", "int3"], "invalid choice: 'int3'"),
        (["generate", "RUN", "xyz"], "the characters 'xyz' are not in the alphabet"),
        (["generate", "RUN", ""], "prompt: empty"),
        (["generate", "RUN", "ab", "--stop", "c"], "stop: for public models"),
        (["generate", "TINY", "x", "--device", "gpu"], "device='gpu': "),
        (["serve", "TINY", "--device", "gpu"], "device='gpu': "),
        (["serve", "TINY", "--concurrency", "0"], "places=0: expected at least 1"),
        (["serve", "RUN", "--max-new-tokens", "3", "--device", "cpu"], "max_new_tokens, device: for public models"),
        (["chat", "RUN"], "was not taught to answer"),
        (["chat", "PLAIN"], "the model has no chat template"),
        (["probe", "TINY", "nowhere"], "nowhere: no such file, and none of facts"),
        (["probe", "TINY", "QUESTIONS", "--shots", "4"], "shots=4: expected 0 to 3"),
        (["probe", "TINY", "QUESTIONS", "--shots", "a"], "shots='a': expected whole numbers"),
        (["probe", "TINY", "QUESTIONS", "--limit", "0"], "limit=0: expected at least 1"),
        (["probe", "TINY", "QUESTIONS", "--context", "2"], "expected at most 3 for context=2"),
        (["probe", "RUN", "QUESTIONS", "--context", "2"], "context: for public models"),
        (["probe", "RUN", "OPEN"], "OPEN: for public models"),
        (["probe", "RUN", "facts"], "are not in the alphabet"),
    ],
)
def test_what_is_wrong_is_one_line(words, expected, tiny, run, questions, tmp_path, capsys):
    (plain := folder(tmp_path / "plain")).joinpath("tokenizer_config.json").unlink()
    (tmp_path / "open").write_text('{"question": "ab", "answers": ["c"], "right": 0}')
    named = {"OPEN": str(tmp_path / "open"), "TINY": str(tiny), "RUN": str(run[0]), "PLAIN": str(plain), "QUESTIONS": questions}
    expected = expected.replace("OPEN", named["OPEN"])
    with pytest.raises(SystemExit) as ended:
        main([named.get(word, word) for word in words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert said.count("\n") == 1
