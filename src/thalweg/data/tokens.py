"""The tokeniser that a public language model comes with, what it calls its turns, and text that comes a token at a time.

A folder has tokenizer.json, or vocab.json and merges.txt as of 2019; a GGUF file has pieces and merges in its metadata.
A chat is rendered by a template that the model was trained with, in the language Jinja, into one text with marks between turns.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from thalweg.gguf import GGUF
from thalweg.weights import CorruptFile

Messages = Sequence[Mapping[str, Any]]  # role: system, user or assistant; content: a text

LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
WORDS = {  # what a GGUF file calls the way in which a text is cut before pieces are merged
    "default": BYTES,
    "gpt-2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "llama-bpe": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    ),
}
ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>")  # of turns, by their names
CONTROL, OWN = 3, 4  # types of pieces: marks, which are no text, and whole words that are never cut


class Tokens:
    """tokenizer: of the library tokenizers.   ends: tokens after which a text is over.   template: of a chat, if it has one.

    named: what a template may name, bos_token and eos_token among them.
    """

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], template: str | None = None, named: Mapping[str, str] = {}):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer, self.ends, self.template, self.named = tokenizer, frozenset(ends), template, dict(named)
        bytewise = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        self.bytewise = frozenset(token for token in bytewise if token is not None)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that is to be gone on with, behind what the model expects at the beginning."""
        return self.tokenizer.encode(text).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without marks."""
        return self.tokenizer.decode(tokens)

    def unfolding(self, before: Sequence[int] = ()) -> "Unfolding":
        """For a text that comes a token at a time; behind those of `before`, where it goes on with a text."""
        return Unfolding(self.decode, self.bytewise, before)

    def chat(self, messages: Messages) -> list[int]:
        """The tokens of a chat, up to where the model is to answer.   ValueError if it has no template, or this refuses."""
        if self.template is None:
            raise ValueError("the model has no chat template: it goes on with texts, and was not taught to answer")
        return self.tokenizer.encode(render(self.template, messages, self.named), add_special_tokens=False).ids


def render(template: str, messages: Messages, named: Mapping[str, str]) -> str:
    """A chat as one text, up to where the model is to answer.   ValueError if the template is wrong or refuses the messages.

    The template is a stranger's program: it runs in Jinja's sandbox, and reaches nothing but what it is given here.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **named)
    except (TemplateError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"messages: the chat template of the model refuses them: {error}") from error


class Unfolding:
    """Text that grows by a token at a time, and never shows a part of a letter.

    A letter may be several tokens, and the first piece of a text may lose its space: so tokens are held back until the letters
    that they end are whole, and read together with the ones before them. All that is given out is the text of all tokens.
    decode: tokens to text.   bytewise: tokens that are a byte of a letter, where only the next other one tells its end.
    before: what stands before the text and is not given out: behind it the first piece keeps its space.
    """

    def __init__(self, decode: Callable[[list[int]], str], bytewise: Collection[int] = (), before: Sequence[int] = ()):
        self.decode, self.bytewise, self.held = decode, bytewise, list[int]()
        told = ([*before[-size:]] for size in range(1, 1 + min(8, len(before))))
        self.before = next((tokens for tokens in told if decode(tokens).strip("\ufffd")), list[int]())

    def add(self, token: int) -> str:
        """What the token adds to the text; empty while a letter is not whole."""
        self.held.append(token)
        return "" if token in self.bytewise or self.decode(self.held).endswith("\ufffd") else self.rest()

    def rest(self) -> str:
        """What has been held back, whole or not: at the end of a text."""
        shown = len(self.decode(self.before)) if self.before else 0
        text = self.decode(self.before + self.held)[shown:]
        if text:
            self.before, self.held = self.held, []
        return text


def tokens_of_gguf(file: GGUF) -> Tokens:
    """The tokeniser in the metadata of a GGUF file.   ValueError for a kind that is not understood."""
    try:
        known = {name.removeprefix("tokenizer.ggml."): value for name, value in file.metadata.items()}
        kind, pieces, types = known["model"], known["tokens"], known["token_type"]
        number = {piece: token for token, piece in enumerate(pieces)}
        if kind == "gpt2":
            if (way := known.get("pre", "default")) not in WORDS:
                raise ValueError(f"{file.path} says tokenizer.ggml.pre={way!r} (expected {', '.join(WORDS)}): not understood")
            merges = [tuple(pair.split(" ")) for pair in known["merges"]]
            tokenizer = Tokenizer(models.BPE(number, merges, ignore_merges=way == "llama-bpe"))
            tokenizer.pre_tokenizer, tokenizer.decoder = WORDS[way], decoders.ByteLevel()
        elif kind == "llama":
            tokenizer = _sentence_pieces(pieces, known["scores"], known.get("add_space_prefix", True))
        else:
            raise ValueError(f"{file.path} says tokenizer.ggml.model={kind!r} (expected 'gpt2' or 'llama'): not understood")
        tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False)
                                      for piece, what in zip(pieces, types, strict=True) if what == CONTROL])  # fmt: skip
        tokenizer.add_tokens(
            [AddedToken(piece, normalized=False) for piece, what in zip(pieces, types, strict=True) if what == OWN]
        )
        named = {f"{name}_token": pieces[known[f"{name}_token_id"]] for name in ("bos", "eos") if f"{name}_token_id" in known}
        if known.get("add_bos_token", kind == "llama" or known.get("pre") == "llama-bpe"):
            first = named["bos_token"]
            tokenizer.post_processor = processors.TemplateProcessing(f"{first} $A", special_tokens=[(first, number[first])])
    except (KeyError, IndexError, TypeError) as error:
        raise CorruptFile(f"{file.path}: its tokeniser is incomplete: {type(error).__name__} {error}") from error
    ends = {number[piece] for piece in ENDS if piece in number} | {known[name] for name in ("eos_token_id", "eot_token_id")
                                                                   if name in known}  # fmt: skip
    return Tokens(tokenizer, ends, known.get("tokenizer.chat_template"), named)


def _sentence_pieces(pieces: Sequence[str], scores: Sequence[float], spaced: bool) -> Tokenizer:
    """Pieces with scores, as the program SentencePiece makes them: of two neighbours that are a piece the best is merged."""
    number = {piece: token for token, piece in enumerate(pieces)}
    pairs = [(-score, number[piece[:cut]], number[piece[cut:]], (piece[:cut], piece[cut:]))
             for piece, score in zip(pieces, scores, strict=True) for cut in range(1, len(piece))
             if piece[:cut] in number and piece[cut:] in number]  # fmt: skip
    merges = [pair for *_, pair in sorted(pairs)]
    tokenizer = Tokenizer(models.BPE(number, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    marked = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *marked] if spaced else marked)
    spoken = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*spoken, decoders.Strip(" ", 1, 0)] if spaced else spoken)
    return tokenizer


def tokens_of_folder(folder: Path) -> Tokens:
    """The tokeniser of a folder of transformers.   FileNotFoundError if it has none; CorruptFile if it is damaged."""
    stated = _stated(folder / "tokenizer_config.json")
    try:
        if (whole := folder / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_file(str(whole))
        elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            whole = folder / "merges.txt"
            tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(whole)))
            tokenizer.pre_tokenizer, tokenizer.decoder = BYTES, decoders.ByteLevel()
            if tokenizer.token_to_id("<|endoftext|>") is not None:
                tokenizer.add_special_tokens(["<|endoftext|>"])
        else:
            raise FileNotFoundError(f"{folder} has no tokeniser: expected tokenizer.json, or vocab.json and merges.txt")
    except FileNotFoundError:
        raise
    except Exception as error:  # that is what the library raises
        raise CorruptFile(f"{whole} is damaged: {error}") from error
    named = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if (mark := stated.get(name)) is not None:
            named[name] = mark["content"] if isinstance(mark, dict) else mark
    ends = {tokenizer.token_to_id(named.get("eos_token", "<|endoftext|>"))}
    for file in ("generation_config.json", "config.json"):
        end = _stated(folder / file).get("eos_token_id")
        ends |= set(end) if isinstance(end, list) else {end}
    template = stated.get("chat_template")
    if isinstance(template, list):
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    if (apart := folder / "chat_template.jinja").exists():
        template = apart.read_text(encoding="utf8")
    return Tokens(tokenizer, {end for end in ends if end is not None}, template, named)


def _stated(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    except ValueError as error:
        raise CorruptFile(f"{path} is damaged: {error}") from error
