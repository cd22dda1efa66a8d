"""The client package of OpenAI talks with a server process of ours; skipped where the package is not installed."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_writer import folder, writer

openai = pytest.importorskip("openai", reason="the package openai is not installed: pip install openai")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    model = folder(tmp_path_factory.mktemp("models") / "tiny", context=200)
    words = [sys.executable, "-m", "thalweg", "serve", str(model), "--port", "0", "--weights", "fp32", "--device", "cpu"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    said = process.stdout.readline()
    found = re.match(r"serving tiny at (http://127\.0\.0\.1:\d+) ", said)
    assert found, said
    with openai.OpenAI(base_url=f"{found[1]}/v1", api_key="none", max_retries=0) as client:
        yield client
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def chatted(said, count):
    who = writer(context=200)
    prompt = who.tokens.chat([{"role": "user", "content": said}])
    return "".join(who.write(prompt, temperature=0, max_new_tokens=count))


def test_its_client_chats_whole_and_streamed_and_at_a_time(client):
    assert [model.id for model in client.models.list()] == ["tiny"]

    def ask(said, stream=False):
        return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": said}], temperature=0,
                                              max_completion_tokens=12, stream=stream)  # fmt: skip

    texts = ["the river", "the way down", "x = 1", "水"]
    with ThreadPoolExecutor(4) as pool:
        answers = [answer.choices[0].message.content for answer in pool.map(ask, texts)]
    assert answers == [chatted(text, 12) for text in texts]
    assert "".join(event.choices[0].delta.content or "" for event in ask("the river", stream=True)) == answers[0]
    whole = client.completions.create(model="tiny", prompt="the way", temperature=0, max_tokens=5)
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (5, "length")


def test_its_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="model='other': expected 'tiny'"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="gives no vectors"):
        client.embeddings.create(model="tiny", input="x")
