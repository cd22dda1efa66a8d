"""The HTTP application of a task: images in, labels, boxes, masks or pictures out; texts in, labels or how they go on out.

Every error is JSON, {"detail": "what was wrong and what is expected"}, below /v1 in OpenAI's form; none ends the server.
"""

import inspect
import math
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from thalweg import __version__
from thalweg.data.images import FORMATS, PIXELS
from thalweg.serving import completions
from thalweg.serving.answers import classify, continue_text, detect, draw, judge, repaint, say, segment
from thalweg.serving.limits import Limits, Turns
from thalweg.serving.schema import (
    PROBLEMS,
    Answer,
    Answers,
    Bounds,
    Continuation,
    Health,
    Judgement,
    Picture,
    Prompt,
    Said,
    Scene,
    Segments,
    Told,
)
from thalweg.tasks.classification import Classification
from thalweg.tasks.detection import Detection
from thalweg.tasks.judgement import TextJudgement
from thalweg.tasks.reading import Reading
from thalweg.tasks.segmentation import Segmentation
from thalweg.tasks.tagging import Tagging
from thalweg.tasks.text_classification import TextClassification
from thalweg.training import Task

MOST_FILES = 64  # of a request
TopK = Annotated[int, Query(ge=1, description="How many labels to give.")]
Least = Annotated[float, Query(ge=0, le=1, description="The smallest probability of what is told.")]
OwnLeast = Annotated[float | None, Query(ge=0, le=1, description="The smallest probability; without it each label's own.")]
ImageFile = Annotated[UploadFile, File(description=f"An image file: {', '.join(FORMATS)}.")]
ImageFiles = Annotated[list[UploadFile], File(description="Image files.", max_length=MOST_FILES)]


def application(
    task: Task,
    *,
    recipe: str | None = None,
    max_megabytes: float = 10.0,
    max_megapixels: float = 50.0,
    concurrency: int = 4,
    waiting: int = 16,
    timeout: float = 30.0,
) -> FastAPI:
    """An ASGI application that answers with the task; the arguments are those of `thalweg.serving.serve`.

    ValueError if the task cannot be served or a limit is none.
    """
    reads = _reads(task)
    most = PIXELS / 1e6
    _check(0 < max_megabytes < math.inf, f"max_megabytes={max_megabytes}", "a number above 0")
    _check(0 < max_megapixels <= most, f"max_megapixels={max_megapixels}", f"a number above 0, at most {most:.1f}")
    _check(concurrency >= 1, f"concurrency={concurrency}", "at least 1")
    _check(waiting >= 0, f"waiting={waiting}", "at least 0")
    _check(0 < timeout < math.inf, f"timeout={timeout}", "a number of seconds above 0")
    pixels = int(max_megapixels * 1e6) // getattr(task, "enlarge", 1) ** 2  # what is made of an image counts
    bounds = Bounds(bytes=int(max_megabytes * 1e6), pixels=pixels, concurrency=concurrency, waiting=waiting, seconds=timeout)
    classes = getattr(task, "classes", None)
    model, started, turns = _model_name(task), time.monotonic(), Turns(concurrency, timeout)
    app = FastAPI(
        title=recipe or model,
        version=__version__,
        description=__doc__ or "",
        exception_handlers={
            HTTPException: _http_problem,
            RequestValidationError: _field_problem("multipart/form-data" if reads == "image" else "application/json"),
            Exception: _fault,
        },
    )
    app.state.turns = turns
    app.add_middleware(Limits, max_bytes=bounds.bytes, max_requests=concurrency + waiting, timeout=timeout)
    task.eval().requires_grad_(False)
    continues = _continues(task)
    if isinstance(task, TextClassification | TextJudgement) and task.classes:
        _classify_texts(app, task, turns)
    elif isinstance(task, Classification | Reading | Tagging):
        _classify_images(app, task, turns, bounds.pixels)
    elif isinstance(task, Detection):
        _find_things(app, task, turns, bounds.pixels)
    elif isinstance(task, Segmentation):
        _segment_images(app, task, turns, bounds.pixels)
    elif reads == "image":
        _repaint_images(app, task, turns, bounds.pixels)
    elif continues:
        _continue_texts(app, task, turns)
    else:
        _read_texts(app, task, turns)
    if draws := _draws(task):
        _draw_images(app, task, turns, bounds.pixels)

    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """Whether the server lives, what it serves, and how busy it is."""
        state = turns.limiter.statistics()
        return Health(model=model, recipe=recipe, task=type(task).__name__, reads=reads, version=__version__,
                      classes=len(classes) if classes else None, draws=draws, continues=continues,
                      uptime_seconds=time.monotonic() - started, running=state.borrowed_tokens,
                      waiting=state.tasks_waiting, limits=bounds)  # fmt: skip

    page = Path(__file__).with_name("page.html").read_text(encoding="utf8")
    policy = (
        "default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    )

    @app.get("/", response_class=HTMLResponse, tags=["server"])
    async def try_it() -> HTMLResponse:
        """A page to try the model on."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return app


def _check(right: bool, given: str, expected: str) -> None:
    if not right:
        raise ValueError(f"{given}: expected {expected}")


def _reads(task: Task) -> Literal["image", "text"]:
    """What is sent to the task. ValueError if there is no way to serve it."""
    if (isinstance(task, Classification | Reading | Tagging) and task.reads == "image") or _draws(task):
        return "image"
    told = type(task).predict is not Task.predict and task.reads == "text"
    asked = [one for one in inspect.signature(task.predict).parameters.values() if one.kind is one.KEYWORD_ONLY]
    if told and (_continues(task) or all(one.default is not one.empty for one in asked)):
        return "text"
    raise ValueError(
        f"{type(task).__name__} cannot be served: expected a task that names or reads images, one that draws, or one that "
        "reads texts, with nothing else to be said"
    )


def _continues(task: Task) -> bool:
    """Whether it continues texts."""
    return task.reads == "text" and {"length", "temperature", "seed"} <= set(inspect.signature(task.predict).parameters)


def _draws(task: Task) -> bool:
    """Whether what the task predicts of an image is a picture too."""
    return task.reads == "image" and type(task).draw is not Task.draw


def _model_name(task: Task) -> str:
    """The builder of the task's model, else the task."""
    history = getattr(getattr(task, "model", None), "history", None)
    return history[0][0].rpartition(":")[2] if history else type(task).__name__


def _top(top_k: TopK = 5) -> dict[str, Any]:
    return {"top_k": top_k}


def _enough(least: OwnLeast = None) -> dict[str, Any]:
    return {"least": least}


def _classify_images(app: FastAPI, task: Classification | Reading | Tagging, turns: Turns, max_pixels: int) -> None:
    arguments = Annotated[dict[str, Any], Depends(_enough if isinstance(task, Tagging) else _top)]  # of the task's predict

    @app.post("/predict", responses=PROBLEMS, tags=["model"])
    async def predict(file: ImageFile, asked: arguments) -> Answer:
        """The labels of an image, the most probable first."""
        seen, milliseconds = await turns.take(classify, task, [await _content(file)], asked, max_pixels)
        return Answer(**seen[0].model_dump(), milliseconds=milliseconds)

    @app.post("/predict/batch", responses=PROBLEMS, tags=["model"])
    async def predict_batch(files: ImageFiles, asked: arguments) -> Answers:
        """The labels of each of several images, the most probable first; one that is wrong refuses all."""
        contents = [await _content(file) for file in files]
        seen, milliseconds = await turns.take(classify, task, contents, asked, max_pixels)
        return Answers(answers=seen, milliseconds=milliseconds)


def _find_things(app: FastAPI, task: Detection, turns: Turns, max_pixels: int) -> None:
    @app.post("/predict", responses=PROBLEMS, tags=["model"], response_model_exclude_none=True)
    async def predict(file: ImageFile, least: Least = 0.5) -> Scene:
        """What is where on an image."""
        return await turns.take(detect, task, await _content(file), least, max_pixels)


def _segment_images(app: FastAPI, task: Segmentation, turns: Turns, max_pixels: int) -> None:
    @app.post("/predict", responses=PROBLEMS, tags=["model"])
    async def predict(file: ImageFile) -> Segments:
        """The class of every pixel of an image, and the share of each."""
        return await turns.take(segment, task, await _content(file), max_pixels)


def _repaint_images(app: FastAPI, task: Task, turns: Turns, max_pixels: int) -> None:
    @app.post("/predict", responses=PROBLEMS, tags=["model"])
    async def predict(file: ImageFile) -> Picture:
        """The picture that the model makes of an image."""
        return await turns.take(repaint, task, await _content(file), max_pixels)


def _draw_images(app: FastAPI, task: Task, turns: Turns, max_pixels: int) -> None:
    @app.post("/predict/picture", response_class=Response, tags=["model"],
              responses={**PROBLEMS, 200: {"content": {"image/png": {}}}})  # fmt: skip
    async def picture(file: ImageFile) -> Response:
        """The image with what was predicted, as a PNG file."""
        return Response(await turns.take(draw, task, await _content(file), max_pixels), media_type="image/png")


async def _content(file: UploadFile) -> tuple[str, bytes]:
    return file.filename or "the file", await file.read()


def _continue_texts(app: FastAPI, task: Task, turns: Turns) -> None:
    @app.post("/generate", responses=PROBLEMS, tags=["model"])
    async def generate(prompt: Prompt) -> Continuation:
        """How a text goes on."""
        return await turns.take(continue_text, task, prompt)


def _read_texts(app: FastAPI, task: Task, turns: Turns) -> None:
    @app.post("/predict", responses=PROBLEMS, tags=["model"])
    async def predict(told: Told) -> Said:
        """What the model says of a text."""
        return await turns.take(say, task, told)


def _classify_texts(app: FastAPI, task: TextClassification | TextJudgement, turns: Turns) -> None:
    @app.post("/predict", responses=PROBLEMS, tags=["model"])
    async def predict(told: Told, top_k: TopK = 5) -> Judgement:
        """The labels of a text, the most probable first."""
        return await turns.take(judge, task, told, top_k)


async def _http_problem(request: Request, error: Any) -> Response:
    """Errors of the protocol, and those that are raised here."""
    detail, path = error.detail, request.url.path
    if path.startswith("/v1/"):
        return await completions.http_problem(request, error)
    if error.status_code == 404:
        known = [f"{method.upper()} {route}" for route, methods in request.app.openapi()["paths"].items() for method in methods]
        detail = f"{path:.200}: nothing there; expected {', '.join(known)}"
    elif error.status_code == 405:
        detail = f"{request.method} {path}: expected {error.headers['Allow']}"
    elif error.status_code == 400:
        detail = f"the body cannot be read: {detail}"
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


def _field_problem(content_type: str) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    """What is wrong with the fields of a request, in one line; 415 if it came in another form, 400 if in none."""

    async def problem(request: Request, error: Any) -> Response:
        if request.url.path.startswith("/v1/"):
            return await completions.field_problem(request, error)
        given = request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != content_type:
            return JSONResponse({"detail": f"content type {given[:100] or 'missing'}: expected {content_type}"}, 415)
        words = []
        for wrong in error.errors():
            if wrong["type"] == "json_invalid":
                return JSONResponse({"detail": f"the body cannot be read as JSON: {wrong['ctx']['error']}"}, 400)
            name = ".".join(str(part) for part in wrong["loc"][1:]) or "body"
            if name.startswith("file") and wrong["type"] != "too_long":
                words.append(f"{name}: expected an image file in a multipart field of this name")
            else:
                words.append(f"{name}: {wrong['msg']}, given {str(wrong['input'])[:80]!r}")
        return JSONResponse({"detail": "; ".join(words)}, 422)

    return problem


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the server failed on this request; its log says why"}, 500)
