"""A trained task, or a language model, answers over HTTP: a documented API, limits that hold, a page to try a task on."""

import contextlib
import importlib
import json
import logging
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_megabytes: float = 10.0,
    max_megapixels: float = 50.0,
    concurrency: int = 4,
    waiting: int = 16,
    timeout: float = 30.0,
    max_new_tokens: int | None = None,
    weights: Literal["auto", "fp32", "bf16", "int4"] = "auto",
    device: str | None = None,
    context: int | None = None,
) -> None:
    """Serves a run or model over HTTP until Ctrl-C: a page, /predict or /generate; of a GGUF file or a folder of Hugging Face's
    the API of OpenAI, /v1/chat/completions and its neighbours; /health and /openapi.json of both.

    host: address to listen on; 0.0.0.0 lets other machines in
    port: to listen on; 0 takes a free one
    max_megabytes: of a request
    max_megapixels: of the images of a request, known before they are decoded
    concurrency: answers computed at a time, or texts written side by side
    waiting: requests that may wait for their turn; the next is told to come back
    timeout: seconds for a request to come in, and for it to get its turn
    max_new_tokens: of an answer of a language model at most
    weights: the numbers that a language model is kept in; if auto, as the file has them, where the machine is fast at it
    device: of a language model: cpu, cuda, cuda:1, mps; the accelerator, if there is one
    context: tokens of a text and its answer at most; the language model's own, if none is given

    ValueError if the task cannot be served or a limit is none; OSError if the address cannot be listened on.
    """
    _require("fastapi", "python_multipart", "uvicorn")
    import uvicorn

    from thalweg.serving.terminal import for_public_models, our_folder

    limits: dict[str, Any] = {"waiting": waiting, "max_megabytes": max_megabytes, "timeout": timeout}
    if folder := our_folder(Path(model)):
        asked = {"max_new_tokens": max_new_tokens, "weights": None if weights == "auto" else weights, "device": device,
                 "context": context}  # fmt: skip
        for_public_models(str(model), asked)
        app = _of_a_task(folder, max_megapixels=max_megapixels, concurrency=concurrency, **limits)
    else:
        from thalweg.adaptation.writer import writer
        from thalweg.serving.completions import application

        found = writer(model, weights=weights, device=device, context=context, places=concurrency)
        app = application(found, max_new_tokens=max_new_tokens, **limits)
    with _listen(host, port) as listener:
        server = uvicorn.Server(uvicorn.Config(app, server_header=False, timeout_graceful_shutdown=10))
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        where = f"[{host}]" if ":" in host else host
        print(f"serving {app.title} at http://{where}:{listener.getsockname()[1]} (its API: /docs); Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


def _of_a_task(folder: Path, *, concurrency: int, **limits: Any) -> "FastAPI":
    import torch

    from thalweg.build import load
    from thalweg.serving.application import application
    from thalweg.serving.completions import add_embeddings
    from thalweg.tasks.sentence_vectors import SentenceVectors

    task: Any = load(folder)
    app = application(task, recipe=_recipe(folder), concurrency=concurrency, **limits)
    if isinstance(task, SentenceVectors):

        def embed(texts: list[str]) -> tuple[Any, int]:
            return task.vectors(texts), sum(map(len, task.pieces.encode(texts, longest=task.longest)))

        add_embeddings(app, app.title, embed, app.state.turns)
    warnings.filterwarnings("ignore", module="PIL")  # of strange files: the client is told
    torch.set_num_threads(max(1, torch.get_num_threads() // concurrency))  # else the answers fight for the cores
    return app


def _require(*modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"serving needs {name}, which is not installed: pip install 'thalweg[serve]'") from error


def _recipe(model_folder: Path) -> str | None:
    """The recipe of the run that the model belongs to, if it does."""
    try:
        return json.loads((model_folder.parent / "run.json").read_text(encoding="utf8"))["recipe"]
    except (OSError, ValueError, KeyError):
        return None


def _listen(host: str, port: int) -> socket.socket:
    """A socket, taken before the server starts, so that a taken port is one line."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"host={host}, port={port}: cannot listen there ({reason}); another port: --port") from error
