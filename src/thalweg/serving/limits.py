"""What keeps a server alive under requests that are too large, too slow or too many."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answer = TypeVar("Answer")
AGAIN = {"Retry-After": "1"}  # seconds


def told(refusal: HTTPException) -> Response:
    return JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)


class Limits:
    """ASGI middleware: bounds the bytes of a body, the seconds in which it comes in, and the requests at a time.

    Bytes are counted as they come in, whatever the request declares. Requests without a body pass.
    413, 408 or 503 to what exceeds max_bytes, timeout (seconds) or max_requests; tell: what is sent then.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_requests: int, timeout: float, tell: Callable[[HTTPException], Response] = told
    ):
        self.app, self.max_bytes, self.max_requests, self.timeout, self.tell = app, max_bytes, max_requests, timeout, tell
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if self.requests >= self.max_requests:
            refusal = busy(f"{self.requests} requests are being answered, the most at a time")
        elif length.isdecimal() and int(length) > self.max_bytes:
            refusal = self.too_large()
        else:
            self.requests += 1
            try:
                await self.app(scope, self.bounded(receive), send)
            finally:
                self.requests -= 1
            return
        await self.tell(refusal)(scope, receive, send)

    def too_large(self) -> HTTPException:
        return HTTPException(413, f"the request is too large: expected at most {self.max_bytes:,} bytes")

    def bounded(self, receive: Receive) -> Receive:
        """receive, until the body has too many bytes or took too long; what comes after it, the end, may take any time."""
        seen, deadline, whole = 0, anyio.current_time() + self.timeout, False

        async def receive_bounded() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()
            try:
                with anyio.fail_after(deadline - anyio.current_time()):
                    message = await receive()
            except TimeoutError as error:
                words = f"the request did not come in within {self.timeout:g} seconds"
                raise HTTPException(408, words, {"Connection": "close"}) from error
            whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise self.too_large()
            return message

        return receive_bounded


class Turns:
    """Threads that compute at most `concurrency` answers at a time; 503 to who waits longer than timeout (seconds)."""

    def __init__(self, concurrency: int, timeout: float):
        self.limiter, self.timeout = anyio.CapacityLimiter(concurrency), timeout

    async def take(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        try:
            with anyio.fail_after(self.timeout):  # of waiting: what has begun is waited for
                return await run_sync(function, *arguments, limiter=self.limiter)
        except TimeoutError as error:
            raise busy(f"no turn came within {self.timeout:g} seconds") from error


def busy(why: str) -> HTTPException:
    return HTTPException(503, f"the server is busy: {why}; try again", AGAIN)
