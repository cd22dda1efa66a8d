"""The server of a language model: OpenAI's words, texts side by side, clients that go, limits, errors."""

import asyncio
import base64
import json
import re
import struct
import threading

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from parity import SENTENCES
from tiny_writer import writer

from thalweg.build import build, save
from thalweg.data.wordpieces import learn_wordpieces
from thalweg.models.language.bert import BERT
from thalweg.serving import _of_a_task
from thalweg.serving.completions import application
from thalweg.tasks.sentence_vectors import SentenceVectors

CHAT = [{"role": "user", "content": "the river"}]


@pytest.fixture(scope="module")
def client():
    with TestClient(application(writer())) as client:
        yield client


def ask(client, path="completions", **asked):
    content = {"prompt": "the way"} if path == "completions" else {"messages": CHAT}
    return client.post(f"/v1/{path}", json={"model": "tiny", "temperature": 0, "max_tokens": 12, **content, **asked})


def alone(prompt="the way", **options):
    who = writer()
    return "".join(who.write(who.tokens.encode(prompt), **{"temperature": 0, "max_new_tokens": 12, **options}))


def events(answer):
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines]


def test_a_text_is_gone_on_with(client):
    answer = ask(client).json()
    assert answer["choices"][0]["text"] == alone()
    assert answer["object"] == "text_completion"
    read = len(writer().tokens.encode("the way"))
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": 12, "total_tokens": read + 12}
    assert answer["choices"][0]["finish_reason"] == "length"


def test_tokens_and_several_texts_are_prompts_too(client):
    tokens = writer().tokens.encode
    texts = ["the way", "a river", "x ="]
    wanted = [alone(text) for text in texts]
    for prompt in (texts, [tokens(text) for text in texts]):
        answer = ask(client, prompt=prompt).json()
        assert [choice["text"] for choice in answer["choices"]] == wanted
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert ask(client, prompt=tokens("the way")).json()["choices"][0]["text"] == wanted[0]
    streamed = events(ask(client, prompt=texts, stream=True))
    for index, text in enumerate(wanted):
        assert "".join(e["choices"][0]["text"] for e in streamed if e["choices"][0]["index"] == index) == text


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_what_streams_is_what_comes_whole(client, path):
    whole = ask(client, path, seed=3, temperature=0.9).json()
    streamed = events(ask(client, path, seed=3, temperature=0.9, stream=True, stream_options={"include_usage": True}))
    usage = streamed.pop()
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({event["id"] for event in streamed}) == 1
    if path == "completions":
        text, wanted = "".join(e["choices"][0]["text"] for e in streamed), whole["choices"][0]["text"]
    else:
        assert streamed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in streamed)
        wanted = whole["choices"][0]["message"]["content"]
    assert text == wanted
    assert [e["choices"][0]["finish_reason"] for e in streamed if e["choices"][0]["finish_reason"]] == ["length"]


def test_a_chat_is_read_by_the_template_of_the_model(client):
    who = writer()
    wanted = "".join(who.write(who.tokens.chat(CHAT), temperature=0, max_new_tokens=12))
    answer = ask(client, "chat/completions").json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": wanted}
    parts = [{"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "river"}]}]
    assert ask(client, "chat/completions", messages=parts).json()["choices"] == answer["choices"]


def test_a_stop_ends_the_answer_and_is_not_shown_whole_or_in_part(client):
    whole = alone()
    stop = whole[3:5]
    for stream in (False, True):
        answer = ask(client, stop=[stop, "never"], stream=stream)
        choices = [event["choices"][0] for event in events(answer)] if stream else answer.json()["choices"]
        assert "".join(choice["text"] for choice in choices) == whole[: whole.index(stop)]
        assert choices[-1]["finish_reason"] == "stop"


def test_requests_at_a_time_get_what_each_gets_alone(client):
    prompts = ["the way down", "x", "water", "the valley and the river", "a", "th"]
    wanted, got = [alone(prompt, max_new_tokens=20) for prompt in prompts], {}

    def one(index):
        got[index] = ask(client, prompt=prompts[index], max_tokens=20).json()["choices"][0]["text"]

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[index] for index in range(len(prompts))] == wanted


def served(app, work):
    """work(client, desk) while the application runs in this thread's loop, so that a client can go in the middle."""

    async def run():
        async with app.router.lifespan_context(app):
            await work(app)

    asyncio.run(run())


def endless():
    """A writer of one text at a time, which goes on until it is stopped: no token ends it."""
    who = writer(places=1, context=20_000)
    who.tokens.ends = frozenset()
    return who


class Leaving:
    """A client that sends a request and goes after the first bytes of the answer, or after some seconds."""

    def __init__(self, asked):
        self.body, self.sent, self.started = json.dumps(asked).encode(), [], asyncio.Event()
        self.left = asyncio.Event()
        self.read = False

    async def receive(self):
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message.get("body"):
            self.started.set()

    def scope(self, path):
        return {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [
            (b"content-type", b"application/json"), (b"content-length", str(len(self.body)).encode())],
            "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "server": ("here", 80),
            "client": ("there", 1)}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_place(stream):
    who = endless()

    async def work(app):
        client = Leaving({"model": "tiny", "prompt": "the", "max_tokens": 19_000, "stream": stream})
        task = asyncio.create_task(app(client.scope("/v1/completions"), client.receive, client.send))
        async with asyncio.timeout(20):
            while not (who.texts and next(iter(who.texts.values())).count > 3):
                await asyncio.sleep(0.01)
            if stream:
                await client.started.wait()
            client.left.set()
            await task
            while who.texts:
                await asyncio.sleep(0.01)
        assert who.batch.free() == 1

    served(application(who), work)


def test_more_than_may_wait_are_told_to_come_back():
    who = endless()

    async def work(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            asked = {"model": "tiny", "prompt": "the", "max_tokens": 19_000}
            running = [asyncio.create_task(client.post("/v1/completions", json=asked)) for _ in range(2)]
            while not who.texts:
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/completions", json=asked)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
            assert "busy" in refused.json()["error"]["message"]
            waited = await running[1]
            assert waited.status_code == 503
            assert "no place came free within 0.5 seconds" in waited.json()["error"]["message"]
            running[0].cancel()

    served(application(who, waiting=1, timeout=0.5), work)


@pytest.mark.parametrize(
    ("path", "asked", "status", "words"),
    [
        ("completions", {"model": "other"}, 404, "model='other': expected 'tiny'"),
        ("completions", {"temperature": -1}, 400, "temperature: Input should be greater than or equal to 0, given '-1'"),
        ("completions", {"max_tokens": 0}, 400, "max_tokens"),
        ("completions", {"n": 2}, 400, "n=2: not supported here"),
        ("completions", {"prompt": []}, 400, "prompt: none"),
        ("completions", {"prompt": ""}, 400, "prompt: 0 tokens, expected 1 to 63"),
        ("completions", {"prompt": [5, 302]}, 400, "prompt: token 302, expected 0 to 301"),
        ("completions", {"prompt": "the " * 70}, 400, "expected 1 to 63 for context=64"),
        ("completions", {"prompt": "the " * 70, "stream": True}, 400, "expected 1 to 63 for context=64"),
        ("completions", {"prompt": ["the", "the " * 70], "stream": True}, 400, "expected 1 to 63 for context=64"),
        ("completions", {"logprobs": 0}, 400, "logprobs=0: not supported here"),
        ("completions", {"repetition_penalty": 1e-40}, 400, "repetition_penalty: .*given '1e-40'"),
        ("chat/completions", {"messages": []}, 400, "messages: List should have at least 1 item"),
        ("chat/completions", {"tools": [{"type": "function"}]}, 400, "tools=.*not supported here"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "type 'image_url'"),
        ("embeddings", {"input": "the"}, 400, "tiny writes texts and gives no vectors of them"),
        ("nothing", {}, 404, "/v1/nothing: nothing there; expected .*POST /v1/chat/completions"),
    ],
)
def test_what_is_wrong_is_said_in_openais_form(client, path, asked, status, words):
    content = {"completions": {"prompt": "the"}, "chat/completions": {"messages": CHAT}}.get(path, {})
    answer = client.post(f"/v1/{path}", json={"model": "tiny", **content, **asked})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.search(words, error["message"])


def test_one_request_may_have_more_texts_than_may_wait():
    with TestClient(application(writer(), waiting=1)) as client:
        answer = ask(client, prompt=["the way"] * 9).json()
        assert [choice["text"] for choice in answer["choices"]] == [alone()] * 9


def test_a_temperature_next_to_nothing_takes_the_likeliest_token(client):
    assert ask(client, temperature=1e-40).json()["choices"][0]["text"] == alone()


def test_what_asks_for_nothing_is_no_error(client):
    asked = {"n": 1, "logprobs": None, "frequency_penalty": 0, "user": "me", "tools": [], "response_format": {"type": "text"}}
    assert ask(client, **asked).json()["choices"][0]["text"] == alone()


def test_a_body_that_is_no_json_or_too_large_is_said_in_openais_form():
    with TestClient(application(writer(), max_megabytes=0.001)) as client:
        answer = client.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"})
        assert (answer.status_code, "cannot be read as JSON" in answer.json()["error"]["message"]) == (400, True)
        answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "a" * 2000})
        assert (answer.status_code, "at most 1,000 bytes" in answer.json()["error"]["message"]) == (413, True)


def test_a_model_that_fails_is_told_and_the_next_text_is_written():
    who = writer()
    with TestClient(application(who), raise_server_exceptions=False) as client:
        step, who.batch.step = who.batch.step, lambda: 1 / 0
        assert ask(client).status_code == 500
        who.batch.step = step
        assert ask(client).json()["choices"][0]["text"] == alone()


def test_models_are_listed(client):
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["object"] == "model"
    assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    assert client.get("/health").json()["places"] == 2


def test_vectors_come_as_numbers_or_packed_from_whoever_gives_them():
    def embed(texts):
        return torch.tensor([[len(text), 0.5] for text in texts]), 7

    with TestClient(application(None, embed, name="vectors")) as client:
        asked = {"model": "vectors", "input": ["a", "abc"]}
        answer = client.post("/v1/embeddings", json=asked).json()
        assert [row["embedding"] for row in answer["data"]] == [[1.0, 0.5], [3.0, 0.5]]
        assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
        packed = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()["data"][1]["embedding"]
        assert struct.unpack("<2f", base64.b64decode(packed)) == (3.0, 0.5)
        refused = client.post("/v1/embeddings", json={**asked, "input": ["a", ""]})
        assert (refused.status_code, "empty text" in refused.json()["error"]["message"]) == (400, True)
        refused = client.post("/v1/completions", json={"model": "vectors", "prompt": "a"})
        assert "writes none" in refused.json()["error"]["message"]


def test_a_task_of_sentence_vectors_gives_them_in_openais_words_too(tmp_path):
    encoder = build(BERT, vocab_size=200, context=40, embed_dim=12, num_layers=1, num_heads=2)
    task = build(SentenceVectors, model=encoder, tokenizer=learn_wordpieces(SENTENCES, 200), longest=30).eval()
    save(task, tmp_path)
    app = _of_a_task(tmp_path, concurrency=1)
    with TestClient(app) as client:
        name = client.get("/v1/models").json()["data"][0]["id"]
        answer = client.post("/v1/embeddings", json={"model": name, "input": SENTENCES[:3]}).json()
        found = torch.tensor([row["embedding"] for row in answer["data"]])
        assert (found - task.vectors(SENTENCES[:3])).abs().max() <= 1e-5
        refused = client.post("/v1/embeddings", json={"model": name, "input": ""})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "input: an empty text, expected at least a letter"
        refused = client.post("/v1/embeddings", json={"model": "other", "input": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        refused = client.post("/v1/embeddings", json={"model": name, "input": 3})
        assert (refused.status_code, "input" in refused.json()["error"]["message"]) == (400, True)
        assert "POST /predict" in client.get("/nowhere").json()["detail"]


def test_a_wrong_limit_is_refused_by_name():
    for limit in ({"waiting": -1}, {"max_new_tokens": 0}, {"timeout": 0}, {"max_megabytes": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(limit))):
            application(writer(), **limit)
    with pytest.raises(ValueError, match="expected one of them"):
        application()
