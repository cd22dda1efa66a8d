"""`thalweg generate` and `thalweg chat`: as a person types them."""

import pytest
import torch
from tiny_writer import folder, writer

from thalweg.build import build, save
from thalweg.cli import main
from thalweg.decoding.sampling import complete
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["generate", "/nowhere", "x"], "/nowhere: neither a folder or file here nor an id"),
        (["generate", "TINY", "x", "--top-p", "3"], "top_p=3.0: expected a number in"),
        (["generate", "TINY", "x", "--weights", "int3"], "invalid choice: 'int3'"),
        (["generate", "RUN", "xyz"], "the characters 'xyz' are not in the alphabet"),
        (["generate", "RUN", ""], "prompt: empty"),
        (["generate", "RUN", "ab", "--stop", "c"], "stop: for public models"),
        (["chat", "RUN"], "was not taught to answer"),
        (["chat", "PLAIN"], "the model has no chat template"),
    ],
)
def test_what_is_wrong_is_one_line(words, expected, tiny, run, tmp_path, capsys):
    (plain := folder(tmp_path / "plain")).joinpath("tokenizer_config.json").unlink()
    named = {"TINY": str(tiny), "RUN": str(run[0]), "PLAIN": str(plain)}
    with pytest.raises(SystemExit) as ended:
        main([named.get(word, word) for word in words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert said.count("\n") == 1
