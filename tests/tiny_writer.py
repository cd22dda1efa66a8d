"""A tiny language model that nobody trained, with a tokeniser and a chat template, for tests."""

import json
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer

from thalweg.adaptation.writer import Writer
from thalweg.build import build
from thalweg.data.subwords import learn_subwords
from thalweg.data.tokens import Tokens
from thalweg.models.language.llama import Llama
from thalweg.public import export

TEXTS = ["the valley and the river", "the way down that water finds", "x = [1, 2, 345]", "水往低处流 🏞️"]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def learned() -> str:
    return learn_subwords(TEXTS, 300)


def tokenizer() -> Tokenizer:
    """Of sub-words, with the marks of a chat."""
    made = Tokenizer.from_str(learned())
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return made


def model(family: type = Llama, context: int = 64, std: float = 1.0):
    torch.manual_seed(0)
    sizes = {"hidden_dim": 24, "num_key_value_heads": 1} if family is Llama else {}
    made = build(family, vocab_size=302, context=context, embed_dim=16, num_layers=2, num_heads=2, **sizes)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return made.eval().requires_grad_(False)


def writer(places: int = 2, context: int = 64) -> Writer:
    words = tokenizer()
    tokens = Tokens(words, [words.token_to_id("<|im_end|>")], CHATML)
    return Writer(model(context=context), tokens, name="tiny", context=context, places=places)


def folder(path: Path, family: type = Llama, context: int = 64) -> Path:
    """The same as transformers writes it."""
    export(model(family, context), path, "transformers")
    tokenizer().save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "chat_template": CHATML}))
    return path
