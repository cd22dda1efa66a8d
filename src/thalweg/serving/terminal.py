"""A language model at the terminal: it goes on with a text, or talks; what it writes appears as it is written."""

import json
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from thalweg.adaptation.writer import Writer
    from thalweg.data.probes import Probe
    from thalweg.tasks.language_modelling import LanguageModelling


def generate(
    model: str,
    prompt: str,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: str | None = None,
    weights: Literal["auto", "fp32", "bf16", "int4"] = "auto",
    device: str | None = None,
    context: int | None = None,
) -> Iterator[str]:
    """Goes on with a text, piece by piece as it is written.

    max_new_tokens: at most; fewer if the model ends the text
    temperature: 0 takes the likeliest token, 1 draws from the model's own distribution, more is wilder
    top_k: draw from so many of the likeliest tokens alone
    top_p: draw from the likeliest tokens that have this probability together
    min_p: draw from tokens that have at least this share of the likeliest one's probability
    repetition_penalty: makes what was said before less likely; 1.1 is usual
    seed: the same gives the same text
    stop: text that ends the answer
    weights: the numbers that the model is kept in; if auto, as the file has them, where the machine is fast at it
    device: cpu, cuda, cuda:1, mps; the accelerator, if there is one
    context: tokens read at most; the model's own, if none is given
    """
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
                               "min_p": min_p, "repetition_penalty": repetition_penalty, "seed": seed}  # fmt: skip
    if (folder := our_folder(Path(model))) is not None:
        asked = {"stop": stop, "device": device, "context": context, "weights": None if weights == "auto" else weights}
        for_public_models(model, asked)
        yield from _run_writes(_language_model(folder), prompt, **options)
        return
    from thalweg.adaptation.writer import writer

    found = writer(model, weights=weights, device=device, context=context)
    yield from found.write(found.tokens.encode(prompt), **options, stop=[stop] if stop else [])


def chat(
    model: str,
    *,
    system: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    weights: Literal["auto", "fp32", "bf16", "int4"] = "auto",
    device: str | None = None,
    context: int | None = None,
) -> None:
    """Talks with a model that was taught to: a line is a turn, an empty line starts afresh, Ctrl-D ends it.

    system: what the model is told before the first turn
    max_new_tokens: of an answer; as many as fit the context, if none is given
    temperature: 0 takes the likeliest token, 1 draws from the model's own distribution, more is wilder
    top_k: draw from so many of the likeliest tokens alone
    top_p: draw from the likeliest tokens that have this probability together
    min_p: draw from tokens that have at least this share of the likeliest one's probability
    repetition_penalty: makes what was said before less likely; 1.1 is usual
    seed: the same gives the same answers
    weights: the numbers that the model is kept in; if auto, as the file has them, where the machine is fast at it
    device: cpu, cuda, cuda:1, mps; the accelerator, if there is one
    context: tokens of a conversation at most; the model's own, if none is given
    """
    if our_folder(Path(model)) is not None:
        raise ValueError(f"{model} was not taught to answer: thalweg generate goes on with a text")
    from thalweg.adaptation.writer import writer

    found = writer(model, weights=weights, device=device, context=context)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
                               "min_p": min_p, "repetition_penalty": repetition_penalty}  # fmt: skip
    beginning = [{"role": "system", "content": system}] if system else []
    found.tokens.chat([*beginning, {"role": "user", "content": ""}])  # a model without a template is told so at once
    turns = list(beginning)
    print(f"{found.name}, context {found.context}. A line is a turn; an empty one starts afresh; Ctrl-D ends it.")
    for number in count():
        try:
            said = input("> ").strip()
        except EOFError:
            print()
            return
        if not said:
            turns = list(beginning)
            continue
        turns.append({"role": "user", "content": said})
        answer = ""
        try:
            for piece in found.write(found.tokens.chat(turns), **options, seed=seed + number, answers=True):
                print(piece, end="", flush=True)
                answer += piece
            print()
        except KeyboardInterrupt:  # of this answer
            print(" ...")
        except ValueError as error:
            print(f"({error}; an empty line starts afresh)")
            turns.pop()
            continue
        turns.append({"role": "assistant", "content": answer})


def probe(
    model: str,
    probes: str,
    *,
    shots: str = "0",
    seed: int = 0,
    limit: int | None = None,
    per_token: bool = False,
    weights: Literal["auto", "fp32", "bf16", "int4"] = "auto",
    device: str | None = None,
    context: int | None = None,
) -> Iterator[str]:
    """Asks a model questions with answers to choose from: it says the one that it finds most probable behind the question.
    Where a question has one answer, it writes a line, each time the most probable token, and ROUGE says how alike they are.

    shots: answered questions that are shown before each, others of the same file; several numbers with commas between
    seed: which they are
    limit: questions asked, the first so many; examples are of these too
    per_token: whether an answer's log-probability is divided by its number of tokens, for answers of unlike length
    weights: the numbers that the model is kept in; if auto, as the file has them, where the machine is fast at it
    device: cpu, cuda, cuda:1, mps; the accelerator, if there is one
    context: tokens read at most; the model's own, if none is given
    """
    from thalweg.data import probes as data
    from thalweg.decoding.likelihood import choose

    try:
        numbers = [int(number) for number in shots.split(",")]
    except ValueError as error:
        raise ValueError(f"shots={shots!r}: expected whole numbers with commas between") from error
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1")
    asked = data.probes(probes)[:limit]
    for number in numbers:
        data.prompted(asked, 0, number, seed)  # what is too much is told before a model is read
    to_write = len(asked[0].answers) == 1
    if (folder := our_folder(Path(model))) is not None:
        given = {"device": device, "context": context, "weights": None if weights == "auto" else weights}
        for_public_models(model, given | ({probes: True} if to_write else {}))
        task = _language_model(folder)
        network, encode, most = cast("Any", task.model), lambda text: task.prompt(text).tolist(), task.context
    else:
        from thalweg.adaptation.writer import writer

        found = writer(model, weights=weights, device=device, context=context, places=16 if to_write else 1)
        network, encode, most = found.model, found.tokens.encode, found.context
    if to_write:
        yield from _written(found, asked, numbers, seed, headlines=probes == "headlines")
        return
    chance = sum(1 / len(one.answers) for one in asked) / len(asked)
    yield f"{len(asked):,} questions; by chance {chance:.1%}"
    for number in numbers:
        right = 0
        for place, one in enumerate(asked):
            prompt = data.prompted(asked, place, number, seed)
            chosen = choose(network, encode, prompt, [data.shown(prompt, answer) for answer in one.answers], most)
            right += chosen.right(one.right, per_token)
        share = right / len(asked)
        deviation = (share * (1 - share) / len(asked)) ** 0.5
        yield f"{number} shot{'s' * (number != 1)}: {share:.1%} right, standard error {deviation:.1%}"


def _written(who: "Writer", asked: Sequence["Probe"], shots: Sequence[int], seed: int, *, headlines: bool) -> Iterator[str]:
    """Lines that a model writes behind questions, after so many examples each, compared with the answers."""
    from thalweg.data.headlines import lead
    from thalweg.data.probes import BEFORE, BEHIND, prompted
    from thalweg.metrics import ROUGE

    right = [one.answers[0] for one in asked]

    def told(name: str, said: Sequence[str]) -> str:
        measured = {kind: ROUGE(kind) for kind in ROUGE.kinds}
        for metric in measured.values():
            metric.update(said, right)
        return f"{name}: " + ", ".join(f"{kind} {float(metric.compute()):.3f}" for kind, metric in measured.items())

    yield f"{len(asked):,} questions, each to be answered in a line"
    if headlines:
        yield told("lead-1", [lead(one.question.removeprefix(BEFORE).removesuffix(BEHIND)) for one in asked])
    for number in shots:
        prompts = [who.tokens.encode(prompted(asked, place, number, seed)) for place in range(len(asked))]
        said = [line.strip() for line in who.write_all(prompts, temperature=0, max_new_tokens=40, stop=["\n"])]
        yield told(f"{number} shot{'s' * (number != 1)}", said)
        for line, wanted in [*zip(said, right, strict=True)][:3]:
            yield f"    {line}   (right: {wanted})"


def our_folder(path: Path) -> Path | None:
    """The folder of the model, of a run or of a model of ours; None if it is something else."""
    for folder in (path / "model", path):
        config = folder / "config.json"
        if config.exists() and "history" in json.loads(config.read_text(encoding="utf8")):
            return folder
    return None


def for_public_models(model: str, asked: dict[str, Any]) -> None:
    """ValueError if something was asked that a run of ours does not know."""
    if given := [name for name, value in asked.items() if value is not None]:
        raise ValueError(f"{', '.join(given)}: for public models; {model} is a run of ours, which knows none of it")


def _language_model(folder: Path) -> "LanguageModelling":
    from thalweg.build import load
    from thalweg.tasks.language_modelling import LanguageModelling

    task = load(folder)
    if not isinstance(task, LanguageModelling):
        raise ValueError(f"{folder}: {type(task).__name__} writes no texts; thalweg predict asks it")
    return task


def _run_writes(
    task: "LanguageModelling", prompt: str, *, max_new_tokens: int, repetition_penalty: float, seed: int, **options: Any
) -> Iterator[str]:
    """A model of ours reads the last of its context, and so goes on, without an end if none is among its tokens."""
    from torch import Generator

    from thalweg.data.tokens import Unfolding
    from thalweg.decoding import sampling

    prompted, unfolding = task.prompt(prompt), Unfolding(task.characters.decode)
    choose = sampling.sampling(**options, generator=Generator().manual_seed(seed))
    rules = [sampling.repetition_penalty(repetition_penalty)] if repetition_penalty != 1 else []
    model = cast("Any", task.model)
    for token in islice(sampling.generate(model, [prompted], choose, context=task.context, rules=rules), max_new_tokens):
        if token == task.end:
            break
        yield unfolding.add(int(token))
    yield unfolding.rest()
