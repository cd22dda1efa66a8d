"""Public weights become somebody who writes: a language model, its tokeniser, and the texts that it is at."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator

from thalweg import public
from thalweg.adaptation.packed import packed
from thalweg.data.tokens import Tokens, tokens_of_folder, tokens_of_gguf
from thalweg.decoding.continuous import ContinuousBatch
from thalweg.decoding.sampling import repetition_penalty, sampling
from thalweg.gguf import GGUF
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama
from thalweg.training.machine import default_device, native_bf16
from thalweg.vocabulary import LanguageModel

Q4_1 = 3  # the type of a GGUF file whose weights `packed` holds as they are
FAMILIES = {"llama": Llama, "mistral": Llama, "gpt2": GPT}  # by the model_type of a config.json
Weights = Literal["auto", "fp32", "bf16", "int4"]


class Text:
    """A text while it is written.

    piece: what the last step added, whole letters of it.   finish: None while it goes on, "stop" if the model or one of the
    texts `stop` ended it, "length" if it has as many tokens as it may.   count: tokens written.
    """

    def __init__(self, tokens: Tokens, before: Sequence[int], most: int, stop: Sequence[str]):
        self.most, self.stop, self.ends = most, [text for text in stop if text], tokens.ends
        self.unfolding, self.piece, self.held, self.count = tokens.unfolding(before), "", "", 0
        self.finish: Literal["stop", "length"] | None = None

    def add(self, token: int) -> None:
        self.count += 1
        if token in self.ends:
            self.finish = "stop"
        else:
            self.held += self.unfolding.add(token)
        if self.finish is None and self.count == self.most:
            self.finish = "length"
        if self.finish:
            self.held += self.unfolding.rest()
        places = [place for text in self.stop if (place := self.held.find(text)) >= 0]
        if places:
            self.finish, self.held = "stop", self.held[: min(places)]
        shown = len(self.held) - (0 if self.finish else self._may_be_a_stop())
        self.piece, self.held = self.held[:shown], self.held[shown:]

    def _may_be_a_stop(self) -> int:
        """How many of the last letters may be the first of a stop."""
        sizes = [size for text in self.stop for size in range(1, len(text)) if self.held.endswith(text[:size])]
        return max(sizes, default=0)


class Writer:
    """A language model that writes up to `places` texts side by side.

    context: tokens of a text at most, prompt and answer, at most the model's own.   name: what others call it.
    """

    def __init__(self, model: LanguageModel, tokens: Tokens, *, name: str, context: int, places: int = 1):
        self.model, self.tokens, self.name, self.context = model, tokens, name, context
        self.batch = ContinuousBatch(model, places=places, context=context)
        self.vocab_size = len(model.embedding.weight)  # type: ignore[attr-defined]
        self.texts: dict[int, Text] = {}

    def begin(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        answers: bool = False,
    ) -> Text:
        """A text that the next steps go on with; the options are those of `decoding.sampling`.

        max_new_tokens: as many as fit the context if None.   answers: the text is one of its own, a turn of a chat, and does
        not go on with the prompt in the midst of a line.   ValueError if an option is wrong, if the prompt is empty or leaves
        no room in the context, or if no place is free.
        """
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}: expected at least 1")
        random = Generator(self.batch.device).manual_seed(seed)
        choose = sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, generator=random)
        rules = [penalised(repetition_penalty)] if repetition_penalty != 1 else []
        place = self.batch.join(prompt, choose, rules)
        room = self.context - len(prompt)
        self.texts[place] = Text(self.tokens, () if answers else prompt, min(room, max_new_tokens or room), stop)
        return self.texts[place]

    def step(self) -> list[Text]:
        """A token of every text that has been read, see `ContinuousBatch.step`; these texts. Those that end leave."""
        written = []
        for place, token in self.batch.step().items():
            text = self.texts[place]
            text.add(token)
            written.append(text)
            if text.finish:
                self.end(text)
        return written

    def end(self, text: Text) -> None:
        """The text is not gone on with; nothing if it has ended by itself."""
        for place in [place for place, other in self.texts.items() if other is text]:
            del self.texts[place]
            self.batch.leave(place)

    def write(self, prompt: Sequence[int], **options: Any) -> Iterator[str]:
        """One text alone, in pieces as they are written.   options: see `begin`"""
        text = self.begin(prompt, **options)
        try:
            while text.finish is None:
                if text in self.step() and text.piece:
                    yield text.piece
        finally:
            self.end(text)

    def write_all(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, temperature: float = 0.8, stop: Sequence[str] = ()
    ) -> list[str]:
        """What follows each prompt, as many texts side by side as there are places; see `begin`."""
        written, waiting, writing = [""] * len(prompts), [*enumerate(prompts)][::-1], dict[int, Text]()
        try:
            while waiting or writing:
                while waiting and self.batch.free():
                    number, prompt = waiting.pop()
                    writing[number] = self.begin(prompt, max_new_tokens=max_new_tokens, temperature=temperature, stop=stop)
                grown = self.step()
                for number, text in [*writing.items()]:
                    if text in grown:
                        written[number] += text.piece
                        if text.finish:
                            del writing[number]
        finally:
            for text in writing.values():
                self.end(text)
        return written


penalised = repetition_penalty  # which `begin` takes under the name that users know


def writer(
    source: str | Path, *, weights: Weights = "auto", device: str | None = None, context: int | None = None, places: int = 1
) -> Writer:
    """The writer of a GGUF file, a folder of transformers, or a Hugging Face id.

    weights: if auto, fp32 where bf16 is not native, int4 of a GGUF file of four bits on a CPU, see `PackedLinear`, else bf16.
    device: the accelerator where there is one, if None.
    context: at most, and by default, the model's own.
    ValueError for a family that is not known or an argument that is wrong; CorruptFile if a file is damaged.
    """
    path = public.fetch(source)
    if path.is_dir() and not (path / "config.json").exists():
        raise FileNotFoundError(f"{source}: neither a run with a model nor a model folder: config.json is missing")
    if path.suffix == ".gguf":
        tokens, name = tokens_of_gguf(GGUF(path)), path.stem
    else:
        tokens, name = tokens_of_folder(path), path.name
    if (kind := public.configuration(path).get("model_type")) not in FAMILIES:
        raise ValueError(f"{source}: config.json says model_type={kind!r}, expected one of {', '.join(FAMILIES)}")
    model: Any = public.pretrained(FAMILIES[kind], path)
    try:
        where = torch.device(device) if device else default_device()
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r}: {str(error).partition(chr(10))[0]}") from error
    if weights == "auto":
        few = where.type == "cpu" and path.suffix == ".gguf" and GGUF(path).metadata.get("general.file_type") == Q4_1
        weights = "fp32" if not native_bf16(where) else "int4" if few else "bf16"
    if weights == "int4":
        if where.type != "cpu":
            raise ValueError(f"weights='int4', device={where}: expected device='cpu', whose kernels unpack four bits")
        model = packed(model)
    model = model.to(where, torch.float32 if weights == "fp32" else torch.bfloat16).requires_grad_(False)
    if context is not None and not 2 <= context <= model.context:
        raise ValueError(f"context={context}: expected 2 to {model.context}, what the model can read")
    return Writer(model, tokens, name=name, context=context or model.context, places=places)
