"""Public folders and files become somebody who writes."""

import json

import pytest
import torch
from gguf_files import llama
from tiny_writer import CHATML, folder, model, tokenizer, writer

from thalweg.adaptation.writer import Text
from thalweg.adaptation.writer import writer as of
from thalweg.decoding.sampling import complete
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama


def said(who, prompt="the way", **options):
    return "".join(who.write(who.tokens.encode(prompt), **{"temperature": 0, "max_new_tokens": 20, **options}))


@pytest.mark.parametrize("family", [Llama, GPT])
def test_a_folder_of_transformers_writes_what_its_model_finds_likeliest(tmp_path, family):
    who, tokens = of(folder(tmp_path / "tiny", family), weights="fp32", device="cpu"), tokenizer()
    prompt = torch.tensor(tokens.encode("the way").ids)
    text = complete(model(family), [prompt], 20, context=64)[0][len(prompt) :].tolist()
    assert said(who) == tokens.decode(text)
    assert (who.name, who.context, who.tokens.ends) == ("tiny", 64, {301})


def test_a_gguf_file_writes_what_the_same_model_in_a_folder_writes(tmp_path):
    whole = json.loads(tokenizer().to_str())
    vocab = whole["model"]["vocab"] | {mark["content"]: mark["id"] for mark in whole["added_tokens"]}
    pieces = sorted(vocab, key=vocab.get)
    marks = {mark["content"] for mark in whole["added_tokens"]}
    file = llama(tmp_path / "tiny.gguf", model(), {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [3 if piece in marks else 1 for piece in pieces],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in whole["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": vocab["<|im_end|>"], "tokenizer.chat_template": CHATML,
    })  # fmt: skip
    one, other = of(file, device="cpu", weights="fp32"), of(folder(tmp_path / "tiny"), device="cpu", weights="fp32")
    assert said(one) == said(other)
    chat = [{"role": "user", "content": "the river"}]
    assert one.tokens.chat(chat) == other.tokens.chat(chat)


def test_weights_are_kept_as_asked(tmp_path):
    path = folder(tmp_path / "tiny")
    assert of(path, weights="bf16", device="cpu").model.embedding.weight.dtype is torch.bfloat16
    assert of(path, weights="fp32", device="cpu").model.embedding.weight.dtype is torch.float32


def test_the_end_of_a_turn_ends_the_text_and_is_not_shown():
    who = writer()
    said(who)
    end = who.batch.places[0].tokens[-5]
    who = writer()
    who.tokens.ends = frozenset([end])
    text = who.begin(who.tokens.encode("the way"), temperature=0)
    shown = ""
    while text.finish is None:
        who.step()
        shown += text.piece
    assert text.finish == "stop"
    assert said(writer()).startswith(shown)
    assert who.batch.free() == 2


def test_more_texts_than_places_are_each_written_as_if_alone():
    prompts = ["the way", "the valley and the", "x = [1,", "the river", "water"]
    who = writer(places=2)
    options = {"temperature": 0, "max_new_tokens": 12}
    together = who.write_all([who.tokens.encode(prompt) for prompt in prompts], **options)
    assert together == [said(writer(), prompt, **options) for prompt in prompts]
    assert len({*together}) > 1
    with pytest.raises(ValueError, match="prompt: 0 tokens"):
        who.write_all([[5], []], **options)
    assert who.batch.free() == 2


def test_a_stop_that_comes_in_parts_is_held_back_until_it_is_sure():
    tokens = writer().tokens
    tokens.unfolding = lambda before: type("U", (), {"add": lambda self, token: chr(token), "rest": lambda self: ""})()
    text = Text(tokens, [], 100, ["END", "\n\n"])
    pieces = []
    for letter in "a\nEN ENb\n\nc":
        text.add(ord(letter))
        pieces.append(text.piece)
        if text.finish:
            break
    assert pieces == ["a", "", "\n", "", "EN ", "", "", "ENb", "", ""]
    assert text.finish == "stop"


def test_the_last_letters_appear_though_they_might_have_been_a_stop():
    who = writer()
    whole = said(who)
    assert said(writer(), stop=[whole[-1] + "never"]) == whole


def test_the_same_seed_gives_the_same_text_and_another_another():
    texts = [said(writer(), temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"temperature": -1}, "temperature=-1"), ({"top_p": 2}, "top_p=2"), ({"max_new_tokens": 0}, "max_new_tokens=0"),
     ({"repetition_penalty": 0}, "penalty=0")],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_name_and_takes_no_place(options, words):
    who = writer()
    with pytest.raises(ValueError, match=words):
        who.begin([1], **options)
    assert who.batch.free() == 2


def test_what_is_no_language_model_is_refused_by_name(tmp_path):
    path = folder(tmp_path / "tiny")
    with pytest.raises(ValueError, match="context=100: expected 2 to 64"):
        of(path, context=100)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ValueError, match="model_type='bert', expected one of llama, mistral, gpt2"):
        of(path)
    with pytest.raises(FileNotFoundError, match="neither a run with a model nor a model folder"):
        of(tmp_path)
    with pytest.raises(ValueError, match="neither a folder or file here nor an id"):
        of(tmp_path / "nothing here")
