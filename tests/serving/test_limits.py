"""What is too large, too slow or too much is refused while it comes in, and harms nobody else."""

import threading

import anyio
import httpx
import pytest

from thalweg.serving.application import application
from thalweg.serving.limits import Turns
from thalweg.training import Task


class Gated(Task):
    """Writes when the gate is open, and counts how many write at a time."""

    reads = "text"

    def __init__(self):
        super().__init__()
        self.gate, self.lock = threading.Event(), threading.Lock()
        self.writing = self.most = self.written = 0

    def predict(self, inputs, *, length: int, temperature: float, seed: int):
        with self.lock:
            self.writing += 1
            self.most = max(self.most, self.writing)
        assert self.gate.wait(20)
        with self.lock:
            self.writing -= 1
            self.written += 1
        return inputs


def talk(task, conversation, **limits):
    """Runs conversation(client) with a client of the application."""

    async def main():
        transport = httpx.ASGITransport(application(task, **limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            with anyio.fail_after(20):
                await conversation(client)

    anyio.run(main)


async def until(holds):
    while not holds():
        await anyio.sleep(0.002)


PROMPT = {"text": "a"}


def test_answers_are_computed_a_few_at_a_time_and_the_rest_wait_or_come_back():
    task, statuses = Gated(), []

    async def ask(client):
        response = await client.post("/generate", json=PROMPT)
        statuses.append(response.status_code)
        if response.status_code == 503:
            assert response.headers["retry-after"] == "1"
            assert response.json() == {
                "detail": "the server is busy: 5 requests are being answered, the most at a time; try again"
            }

    async def conversation(client):
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(ask, client)
            await until(lambda: len(statuses) == 7 and task.writing == 2)
            health = (await client.get("/health")).json()  # answers although nobody else gets one
            assert (health["running"], health["waiting"]) == (2, 3)
            task.gate.set()
        assert sorted(statuses) == [200] * 5 + [503] * 7
        assert task.most == 2
        assert (await client.post("/generate", json=PROMPT)).status_code == 200

    talk(task, conversation, concurrency=2, waiting=3)


def test_who_waits_too_long_for_a_turn_is_sent_away_and_never_computed():
    task = Gated()

    async def conversation(client):
        answered = []

        async def first():
            answered.append(await client.post("/generate", json=PROMPT))

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await until(lambda: task.writing == 1)
            second = await client.post("/generate", json=PROMPT)
            assert (second.status_code, second.headers["retry-after"]) == (503, "1")
            assert second.json()["detail"] == "the server is busy: no turn came within 0.5 seconds; try again"
            task.gate.set()
        assert answered[0].status_code == 200  # though it took longer: its turn had come
        assert task.written == 1

    talk(task, conversation, concurrency=1, timeout=0.5)


@pytest.mark.parametrize("declared", [None, "3", "100000"])
def test_a_body_is_refused_while_it_comes_in_whatever_it_declares(declared):
    taken = 0

    async def long():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"a" * 1000

    async def conversation(client):
        headers = {"content-type": "application/json"} | ({"content-length": declared} if declared else {})
        for path in ("/generate", "/nowhere"):
            response = await client.post(path, content=long(), headers=headers)
            if path == "/nowhere" and declared != "100000":
                assert response.status_code == 404  # refused without reading
            else:
                assert response.status_code == 413
                assert response.json() == {"detail": "the request is too large: expected at most 50,000 bytes"}
        assert taken <= 51

    talk(Gated(), conversation, max_megabytes=0.05)


def test_a_body_of_just_the_most_bytes_is_read():
    async def conversation(client):
        task.gate.set()
        body = b'{"text": "a"}'.ljust(50_000)
        kind = {"content-type": "application/json"}
        assert (await client.post("/generate", content=body, headers=kind)).status_code == 200
        assert (await client.post("/generate", content=body + b" ", headers=kind)).status_code == 413

    task = Gated()
    talk(task, conversation, max_megabytes=0.05)


def test_a_body_that_drips_is_cut_off_and_its_place_given_back():
    async def dripping():
        while True:
            yield b" "
            await anyio.sleep(0.01)

    async def conversation(client):
        for _ in range(3):  # more than there are places
            response = await client.post("/generate", content=dripping(), headers={"content-type": "application/json"})
            assert response.status_code == 408
            assert response.json() == {"detail": "the request did not come in within 0.3 seconds"}
            assert response.headers["connection"] == "close"
        task.gate.set()
        assert (await client.post("/generate", json=PROMPT)).status_code == 200

    task = Gated()
    talk(task, conversation, timeout=0.3, concurrency=1, waiting=0)


def test_an_error_in_a_thread_reaches_the_one_who_asked_and_frees_the_thread():
    async def main():
        turns = Turns(1, 1.0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await turns.take(lambda: 1 / 0)
        assert await turns.take(sum, [1, 2]) == 3

    anyio.run(main)
