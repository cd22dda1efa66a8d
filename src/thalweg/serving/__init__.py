"""A trained task answers over HTTP: a documented API, limits that hold, and a page to try it on."""

import contextlib
import importlib
import json
import logging
import socket
import warnings
from pathlib import Path


def serve(
    model_folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_megabytes: float = 10.0,
    max_megapixels: float = 50.0,
    concurrency: int = 4,
    waiting: int = 16,
    timeout: float = 30.0,
) -> None:
    """Serves a run or model over HTTP until Ctrl-C: a page, /predict or /generate, /health, /openapi.json.

    host: address to listen on; 0.0.0.0 lets other machines in
    port: to listen on; 0 takes a free one
    max_megabytes: of a request
    max_megapixels: of the images of a request, known before they are decoded
    concurrency: answers computed at a time
    waiting: requests that may wait for their turn; the next is told to come back
    timeout: seconds for a request to come in, and for it to get its turn

    ValueError if the task cannot be served or a limit is none; OSError if the address cannot be listened on.
    """
    _require("fastapi", "python_multipart", "uvicorn")
    import torch
    import uvicorn

    from thalweg.build import load
    from thalweg.serving.application import application

    app = application(
        load(model_folder),  # type: ignore[arg-type]
        recipe=_recipe(model_folder),
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
        concurrency=concurrency,
        waiting=waiting,
        timeout=timeout,
    )
    warnings.filterwarnings("ignore", module="PIL")  # of strange files: the client is told
    torch.set_num_threads(max(1, torch.get_num_threads() // concurrency))  # else the answers fight for the cores
    with _listen(host, port) as listener:
        server = uvicorn.Server(uvicorn.Config(app, server_header=False, timeout_graceful_shutdown=10))
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        where = f"[{host}]" if ":" in host else host
        print(f"serving {app.title} at http://{where}:{listener.getsockname()[1]} (its API: /docs); Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


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
