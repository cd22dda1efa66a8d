"""A language model over HTTP in the words of OpenAI's API, which most programs that talk to one speak.

Requests are written side by side: one joins between two steps of the others and leaves when it has ended, or when its client
has gone. Every error is {"error": {"message": what was wrong and what is expected, ...}}; none ends the server.
https://platform.openai.com/docs/api-reference
"""

import asyncio
import base64
import json
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from torch import Tensor

from thalweg import __version__
from thalweg.adaptation.writer import Text, Writer
from thalweg.serving.limits import Limits, Turns, busy

Embed = Callable[[list[str]], tuple[Tensor, int]]  # texts -> vectors [text dim], and how many tokens they were

NEUTRAL: dict[str, Any] = {  # what we cannot do, and the values that ask for nothing
    "n": 1, "best_of": 1, "top_logprobs": 0, "echo": False, "suffix": "", "frequency_penalty": 0,
    "presence_penalty": 0, "logit_bias": {}, "tools": [], "functions": [], "tool_choice": "none",
    "response_format": {"type": "text"}, "dimensions": 0, "modalities": ["text"],
}  # fmt: skip
HARMLESS = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}


class Asked(BaseModel):
    """What every request may say. What would change the answer and is not known here is refused by name."""

    model_config = ConfigDict(extra="allow")
    model: str = Field(description="As /v1/models names it.")

    def refused(self) -> str | None:
        for name, value in (self.model_extra or {}).items():
            nothing = not value or (name in NEUTRAL and value == NEUTRAL[name])
            if name == "logprobs":
                nothing = value is None or value is False  # 0 asks for those of the text itself
            if name in HARMLESS or nothing:
                continue
            return f"{name}={json.dumps(value)[:80]}: not supported here"
        return None


class StreamOptions(BaseModel):
    include_usage: bool = False


class Wishes(Asked):
    max_tokens: int | None = Field(None, ge=1, description="Of the answer at most.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token; 1 if none is given.")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same gives the same text; without one, each is another.")
    stop: str | list[str] | None = Field(None, description="Texts that end the answer, which does not show them.")
    stream: bool = False
    stream_options: StreamOptions | None = None


class Completion(Wishes):
    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="A text or tokens, or several.")


class Part(BaseModel):
    type: str
    text: str = ""


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str = Field(examples=["user"])
    content: str | list[Part] | None = Field(None, examples=["What is gravity?"])

    def plain(self) -> dict[str, str]:
        parts = self.content if isinstance(self.content, list) else [Part(type="text", text=self.content or "")]
        if other := [part.type for part in parts if part.type != "text"]:
            raise ValueError(f"messages: content of type {other[0]!r}, expected text")
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(part.text for part in parts)}


class ChatCompletion(Wishes):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="Of the answer at most.")


class Embeddings(Asked):
    input: str | list[str]
    encoding_format: str = Field("float", pattern="^(float|base64)$")


class Written(NamedTuple):
    """What a step added to a text, why it ended, if it did, and of how many tokens it is."""

    piece: str
    finish: str | None
    tokens: int


class Job:
    """A text that is asked for: before it gets a place, while it is written, and until nobody waits for it."""

    def __init__(self, prompt: Sequence[int], options: dict[str, Any], patience: float):
        self.prompt, self.options, self.deadline = prompt, options, time.monotonic() + patience
        self.text: Text | None = None
        self.said: asyncio.Queue[Written | Exception] = asyncio.Queue()
        self.gone = False


class Desk:
    """Texts that wait for a place, and those that are written: all are begun, stepped and ended by one task between two steps.

    waiting: at most so many wait.   timeout: seconds that one waits.
    """

    def __init__(self, writer: Writer, waiting: int, timeout: float):
        self.writer, self.limit, self.timeout = writer, waiting, timeout
        self.waiting, self.running, self.wake = deque[Job](), list[Job](), asyncio.Event()

    async def write(self, prompt: Sequence[int], gone: Callable[[], Awaitable[bool]], **options: Any) -> AsyncIterator[Written]:
        """A text as it is written, to its end or until the client has gone.   ValueError if it cannot be begun; 503 if busy."""
        if len(self.waiting) >= self.limit + self.writer.batch.free():
            raise busy(f"{len(self.waiting)} texts wait, the most at a time")
        job = Job(prompt, options, self.timeout)
        self.waiting.append(job)
        self.wake.set()
        try:
            while not await gone():
                with suppress(TimeoutError):
                    said = await asyncio.wait_for(job.said.get(), 0.5)
                    if isinstance(said, Exception):
                        raise said
                    yield said
                    if said.finish:
                        return
        finally:
            job.gone = True
            self.wake.set()

    async def work(self) -> None:
        while True:
            self._seat()
            if not self.running:
                self.wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), 0.5 if self.waiting else None)
                continue
            try:
                written = await run_sync(self.writer.step)
            except Exception as error:  # of the machine: those who wait are told, and the next may fare better
                logging.getLogger("uvicorn.error").exception("a step failed")
                for job in self.running:
                    job.said.put_nowait(RuntimeError(f"the model failed: {error}"))
                    job.gone = True
                continue
            for job in self.running:
                if job.text in written:
                    assert job.text is not None
                    job.said.put_nowait(Written(job.text.piece, job.text.finish, job.text.count))

    def _seat(self) -> None:
        """Whose client has gone leaves, who waits gets a place, who waited too long is told."""
        for job in self.running:
            if job.gone and job.text is not None:
                self.writer.end(job.text)
        self.running = [job for job in self.running if not job.gone and job.text is not None and not job.text.finish]
        now = time.monotonic()
        self.waiting = deque(job for job in self.waiting if not job.gone)
        while self.waiting and self.writer.batch.free():
            job = self.waiting.popleft()
            try:
                job.text = self.writer.begin(job.prompt, **job.options)
                self.running.append(job)
            except ValueError as error:
                job.said.put_nowait(error)
        for job in [job for job in self.waiting if job.deadline < now]:
            self.waiting.remove(job)
            job.said.put_nowait(busy(f"no place came free within {self.timeout:g} seconds"))


def application(
    writer: Writer | None = None,
    embed: Embed | None = None,
    *,
    name: str | None = None,
    max_megabytes: float = 10.0,
    waiting: int = 16,
    timeout: float = 30.0,
    max_new_tokens: int | None = None,
) -> FastAPI:
    """An ASGI application that writes with the writer, or gives vectors of texts, or both.

    name: of the model, the writer's own if None.   waiting: texts that may wait for a place; the next is told to come back.
    timeout: seconds for a request to come in, and for a text to get its place.   max_new_tokens: of an answer at most.
    ValueError if there is neither a writer nor a way to embed, or a limit is none.
    """
    if writer is None and embed is None:
        raise ValueError("writer=None, embed=None: expected one of them")
    for given, value in (("max_megabytes", max_megabytes), ("timeout", timeout)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{given}={value}: expected a number above 0")
    if waiting < 0:
        raise ValueError(f"waiting={waiting}: expected at least 0")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: expected at least 1")
    model = name or (writer.name if writer else "model")
    desk = Desk(writer, waiting, timeout) if writer else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(desk.work()) if desk else None
        yield
        if task:
            task.cancel()

    app = FastAPI(title=model, version=__version__, description=__doc__ or "", lifespan=lifespan, exception_handlers={
        HTTPException: http_problem, RequestValidationError: field_problem, ValueError: _wrong, Exception: _fault,
    })  # fmt: skip
    places = len(writer.batch.places) if writer else 4
    app.add_middleware(Limits, max_bytes=int(max_megabytes * 1e6), max_requests=places + waiting, timeout=timeout, tell=_told)

    def told_writer() -> Writer:
        if writer is None:
            raise ValueError(f"{model} gives vectors of texts and writes none: expected a request to /v1/embeddings")
        return writer

    def options(asked: Wishes, most: int | None) -> dict[str, Any]:
        most = min((number for number in (asked.max_tokens, most, max_new_tokens) if number is not None), default=None)
        wishes = {name: getattr(asked, name) for name in ("top_k", "top_p", "min_p", "repetition_penalty")}
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        return {"max_new_tokens": most, "temperature": 1.0 if asked.temperature is None else asked.temperature, "stop": stop,
                "seed": random.getrandbits(62) if asked.seed is None else asked.seed,
                **{name: value for name, value in wishes.items() if value is not None}}  # fmt: skip

    async def answer(
        request: Request, asked: Wishes, prompts: list[list[int]], most: int | None, form: "Form"
    ) -> Response | dict[str, Any]:
        assert desk is not None
        for prompt in prompts:
            desk.writer.batch.check(prompt)
        texts = [desk.write(prompt, request.is_disconnected, **options(asked, most), answers=form.chat) for prompt in prompts]
        if asked.stream:
            first = await anext(texts[0], None)  # what is wrong with the request is an error, and no stream
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return StreamingResponse(form.events(texts, first, prompts, usage), media_type="text/event-stream")
        turns = asyncio.Semaphore(places)  # the texts of a request wait for each other, and take no one's room to wait

        async def collected(text: AsyncIterator[Written]) -> Written:
            async with turns:
                return await _collected(text)

        return form.whole(await asyncio.gather(*map(collected, texts)), prompts)

    @app.post("/v1/completions", tags=["model"])
    async def completions(asked: Completion, request: Request) -> Any:
        """How a text, or each of several, goes on."""
        checked(asked, model)
        who, given = told_writer(), asked.prompt
        one = isinstance(given, str) or (given and isinstance(given[0], int))
        several: list[Any] = [given] if one else list(given)
        prompts = [who.tokens.encode(each) if isinstance(each, str) else list(each) for each in several]
        if not prompts:
            raise ValueError("prompt: none, expected at least one")
        size = who.vocab_size
        if wrong := [token for prompt in prompts for token in prompt if not 0 <= token < size]:
            raise ValueError(f"prompt: token {wrong[0]}, expected 0 to {size - 1}")
        return await answer(request, asked, prompts, 16 if asked.max_tokens is None else None, Form(model, chat=False))

    @app.post("/v1/chat/completions", tags=["model"])
    async def chat_completions(asked: ChatCompletion, request: Request) -> Any:
        """The model's turn in a chat."""
        checked(asked, model)
        prompt = told_writer().tokens.chat([message.plain() for message in asked.messages])
        return await answer(request, asked, [prompt], asked.max_completion_tokens, Form(model, chat=True))

    add_embeddings(app, model, embed, Turns(places, timeout))

    @app.get("/health", tags=["server"])
    async def health() -> Any:
        """Whether the server lives, and how busy it is."""
        return {"status": "ok", "model": model, "version": __version__, "context": writer.context if writer else None,
                "running": len(desk.running) if desk else 0, "waiting": len(desk.waiting) if desk else 0,
                "places": places, "writes": writer is not None, "embeds": embed is not None}  # fmt: skip

    return app


def checked(asked: Asked, model: str) -> None:
    """404 for another model than is served, 400 for what is asked and not known."""
    if asked.model != model:
        raise HTTPException(404, f"model={asked.model!r:.200}: expected {model!r}")
    if words := asked.refused():
        raise HTTPException(400, words)


def add_embeddings(app: FastAPI, model: str, embed: Embed | None, turns: Turns) -> None:
    """/v1/embeddings and /v1/models, for any application that gives vectors of texts, each in its turn, or tells why none."""
    described = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "thalweg"}

    @app.post("/v1/embeddings", tags=["model"])
    async def embeddings(asked: Embeddings) -> Any:
        """A vector of each text."""
        checked(asked, model)
        if embed is None:
            raise HTTPException(400, f"{model} writes texts and gives no vectors of them: expected a model trained to, "
                                     "such as all-MiniLM-L6-v2")  # fmt: skip
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not texts or not all(texts):
            raise HTTPException(400, "input: an empty text, expected at least a letter")
        vectors, count = await turns.take(embed, texts)
        rows = vectors.float().cpu().numpy().astype("<f4")
        packed = asked.encoding_format == "base64"
        data = [{"object": "embedding", "index": index,
                 "embedding": base64.b64encode(row.tobytes()).decode() if packed else row.tolist()}
                for index, row in enumerate(rows)]  # fmt: skip
        return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": count, "total_tokens": count}}

    @app.get("/v1/models", tags=["server"])
    async def models() -> Any:
        """What is served."""
        return {"object": "list", "data": [described]}

    @app.get("/v1/models/{name:path}", tags=["server"])
    async def one_model(name: str) -> Any:
        """One of them."""
        if name != model:
            raise HTTPException(404, f"model={name!r:.200}: expected {model!r}")
        return described


async def _collected(text: AsyncIterator[Written]) -> Written:
    piece, last = "", Written("", "stop", 0)
    async for last in text:
        piece += last.piece
    return Written(piece, last.finish, last.tokens)


class Form:
    """How an answer is written down: as a whole, or as events; of a chat or of a text that is gone on with."""

    def __init__(self, model: str, chat: bool):
        self.model, self.chat, self.created = model, chat, int(time.time())
        self.id = ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex

    def _frame(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices, **more}

    def whole(self, texts: Sequence[Written], prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        choices = []
        for index, text in enumerate(texts):
            said = {"message": {"role": "assistant", "content": text.piece}} if self.chat else {"text": text.piece}
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": text.finish})
        usage = _usage(prompts, sum(text.tokens for text in texts))
        return self._frame("chat.completion" if self.chat else "text_completion", choices, usage=usage)

    async def events(
        self, texts: Sequence[AsyncIterator[Written]], first: Written | None, prompts: Sequence[Sequence[int]], usage: bool
    ) -> AsyncIterator[str]:
        kind, count = "chat.completion.chunk" if self.chat else "text_completion", 0

        def event(index: int, said: dict[str, Any] | str, finish: str | None = None) -> str:
            part = {"delta": said} if self.chat else {"text": said}
            return _event(self._frame(kind, [{"index": index, **part, "logprobs": None, "finish_reason": finish}]))

        try:
            if self.chat:
                yield event(0, {"role": "assistant", "content": ""})
            for index, text in enumerate(texts):
                written = first if index == 0 else await anext(text, None)
                while written is not None:
                    if written.piece:
                        yield event(index, {"content": written.piece} if self.chat else written.piece)
                    if written.finish:
                        count += written.tokens
                        yield event(index, {} if self.chat else "", written.finish)
                    written = await anext(text, None)
            if usage:
                yield _event(self._frame(kind, [], usage=_usage(prompts, count)))
            yield "data: [DONE]\n\n"
        except (RuntimeError, ValueError, HTTPException) as error:  # after the first event there is no other status
            yield _event({"error": _error(str(error), "server_error")})
        finally:
            for text in texts:
                await text.aclose()  # type: ignore[attr-defined]


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(prompts: Sequence[Sequence[int]], count: int) -> dict[str, int]:
    read = sum(map(len, prompts))
    return {"prompt_tokens": read, "completion_tokens": count, "total_tokens": read + count}


def _error(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": None, "code": code}


def _told(refusal: HTTPException) -> Response:
    status = refusal.status_code
    code = "model_not_found" if status == 404 and refusal.detail.startswith("model=") else None
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": _error(refusal.detail, kind, code)}, status, refusal.headers)


async def http_problem(request: Request, error: Any) -> Response:
    """Errors of the protocol, and those that are raised here."""
    path = request.url.path
    if error.status_code == 404 and error.detail == "Not Found":
        known = [f"{method.upper()} {route}" for route, methods in request.app.openapi()["paths"].items() for method in methods]
        error = HTTPException(404, f"{path:.200}: nothing there; expected {', '.join(known)}")
    elif error.status_code == 405:
        error = HTTPException(405, f"{request.method} {path}: expected {error.headers['Allow']}", error.headers)
    return _told(error)


async def field_problem(request: Request, error: Any) -> Response:
    """What is wrong with the fields of a request, in one line."""
    words = []
    for wrong in error.errors():
        if wrong["type"] == "json_invalid":
            words = [f"the body cannot be read as JSON: {wrong['ctx']['error']}"]
            break
        name = ".".join(str(part) for part in wrong["loc"][1:]) or "body"
        words.append(f"{name}: {wrong['msg']}, given {str(wrong['input'])[:80]!r}")
    return _told(HTTPException(400, "; ".join(words)))


async def _wrong(request: Request, error: Exception) -> Response:
    return _told(HTTPException(400, str(error)))


async def _fault(request: Request, error: Exception) -> Response:
    return _told(HTTPException(500, "the server failed on this request; its log says why"))
