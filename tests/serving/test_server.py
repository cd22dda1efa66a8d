"""A server process on a real socket: many clients at once, rude ones among them, until Ctrl-C."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from PIL import Image

from thalweg.build import adapt, build, save
from thalweg.layers.standardize import standardize
from thalweg.models.vision.lenet import lenet
from thalweg.serving import serve
from thalweg.tasks.classification import Classification


def picture(seed):
    pixels = torch.randint(256, (20, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.5], deviation=[0.3], size=[8, 8])
    save(build(Classification, model=model, classes=list("abcdefghij")), folder / "model")
    (folder / "run.json").write_text('{"recipe": "letters"}')
    return folder


@pytest.fixture(scope="module")
def server(run_folder):
    words = [sys.executable, "-m", "thalweg", "serve", str(run_folder), "--port", "0", "--max-megabytes", "0.1",
             "--concurrency", "2", "--timeout", "5"]  # fmt: skip
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    said = process.stdout.readline()
    found = re.match(r"serving letters at (http://127\.0\.0\.1:\d+) ", said)
    assert found, said + process.stderr.read()
    yield found[1]
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_many_clients_at_once_get_their_own_answers(server):
    def ask(client, seed):
        if seed % 4 == 3:
            return client.post("/predict", files={"file": b"no image"})
        return client.post("/predict", files={"file": picture(seed)})

    with httpx.Client(base_url=server) as client, ThreadPoolExecutor(8) as threads:
        alone = {seed: ask(client, seed) for seed in range(12)}
        for seed, response in enumerate(threads.map(lambda number: ask(client, number % 12), range(72))):
            assert response.status_code == (422 if seed % 4 == 3 else 200)
            if response.status_code == 200:
                assert response.json()["predictions"] == alone[seed % 12].json()["predictions"]
    assert len({str(response.json().get("predictions")) for response in alone.values()}) == 10


def raw(server, sent, most=100_000):
    """The bytes that come back for bytes that are sent."""
    address = httpx.URL(server)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while len(received) < most and (more := connection.recv(65_536)):
            received += more
            if b"\r\n\r\n" in received and b"}" in received:
                break
        return received


def test_a_client_that_only_writes_reads_why_it_was_refused(server):
    for headers in (b"Content-Length: 3000000", b"Transfer-Encoding: chunked"):
        body = b"a" * 3_000_000 if b"Length" in headers else b"2dc6c0\r\n" + b"a" * 3_000_000 + b"\r\n0\r\n\r\n"
        kind = b"Content-Type: multipart/form-data; boundary=b\r\n"
        received = raw(server, b"POST /predict HTTP/1.1\r\nHost: here\r\n" + kind + headers + b"\r\n\r\n" + body)
        assert received.startswith(b"HTTP/1.1 413 ")
        assert received.endswith(b'{"detail":"the request is too large: expected at most 100,000 bytes"}')


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        bytes(range(256)) * 10,
    ],
)
def test_what_is_no_http_ends_nothing_but_its_connection(server, sent):
    received = raw(server, sent, most=1)
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server}/health").status_code == 200


def test_clients_that_leave_in_the_middle_take_no_place_with_them(server):
    address = httpx.URL(server)
    for _ in range(40):  # more than may be answered or wait
        with socket.create_connection((address.host, address.port), timeout=10) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                               b"Content-Length: 5000\r\n\r\n--b\r\nContent-Disp")  # fmt: skip
    until = time.monotonic() + 4  # before the server would cut them off
    while (
        status := httpx.post(f"{server}/predict", files={"file": picture(0)}).status_code
    ) == 503 and time.monotonic() < until:
        time.sleep(0.05)
    assert status == 200


def test_a_port_that_is_taken_is_named(run_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"^host=127\.0\.0\.1, port={port}: cannot listen there \(.*in use"):
            serve(run_folder / "model", port=port)
    with pytest.raises(OSError, match=r"port=70000: cannot listen there"):
        serve(run_folder / "model", port=70_000)


def test_a_library_that_is_missing_is_named_with_its_cure(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"serving needs uvicorn, .*pip install 'thalweg\[serve\]'"):
        serve(run_folder / "model")
