"""The HTTP application: what it answers, what it refuses in words, and what it documents."""

import base64
import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thalweg.build import adapt, build, load, save
from thalweg.data import run_lengths
from thalweg.data.images import read_image
from thalweg.data.wordpieces import learn_wordpieces
from thalweg.figures import palette
from thalweg.layers.standardize import standardize
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfText, OfTokens
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.language.textcnn import TextCNN
from thalweg.models.vision.dncnn import DnCNN
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.rcnn import mask_rcnn
from thalweg.models.vision.ssd import SSD, Plain
from thalweg.models.vision.unet import unet
from thalweg.serving import answers, application, schema
from thalweg.tasks.classification import Classification
from thalweg.tasks.detection import MultiBox
from thalweg.tasks.extraction import Extraction
from thalweg.tasks.judgement import TextJudgement
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.tasks.regions import TwoStageDetection
from thalweg.tasks.restoration import Restoration
from thalweg.tasks.segmentation import Segmentation
from thalweg.tasks.sentence_vectors import SentenceVectors
from thalweg.tasks.tagging import Tagging
from thalweg.tasks.text_classification import TextClassification
from thalweg.training import Task

CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]


def picture(width=12, height=9, kind="PNG", seed=0):
    pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, kind)
    return file.getvalue()


def png_that_promises(width, height):
    """A PNG file whose header promises a size, with hardly any data behind it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.5], deviation=[0.3], size=[8, 8])
    save(build(Classification, model=model, classes=CLASSES), folder)
    return load(folder).train()


@pytest.fixture(scope="module")
def client(task):
    app = application.application(task, recipe="insects", max_megabytes=0.2, max_megapixels=0.1)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def upload(client, content, name="photo.png", field="file", path="/predict", **options):
    return client.post(path, files=[(field, (name, content))], **options)


def refused(response, status):
    """The words of a refusal, which are all that a client gets to see."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert "Traceback" not in response.text
    return response.json()["detail"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_answer_is_the_task_s_own(client, task, kind):
    content = picture(30, 20, kind)
    answer = schema.Answer.model_validate(upload(client, content, params={"top_k": 10}).raise_for_status().json())
    expected = task.predict({"image": read_image(content)[None]}, top_k=10)
    assert [p.label for p in answer.predictions] == expected["label"][0]
    assert [p.probability for p in answer.predictions] == pytest.approx(expected["probability"][0].tolist(), abs=1e-7)
    assert sum(p.probability for p in answer.predictions) == pytest.approx(1)
    assert (answer.width, answer.height) == (30, 20)
    assert answer.milliseconds > 0


@pytest.mark.parametrize(("asked", "given"), [({}, 5), ({"top_k": 1}, 1), ({"top_k": 1000}, 10)])
def test_as_many_labels_as_asked_for_where_there_are_so_many(client, asked, given):
    assert len(upload(client, picture(), params=asked).json()["predictions"]) == given


def test_several_images_are_answered_in_their_order_as_each_alone(client):
    contents = [picture(seed=1), picture(20, 30, seed=2), picture(seed=3), picture(20, 30, "JPEG", seed=4)]
    files = [("files", (f"{index}.png", content)) for index, content in enumerate(contents)]
    together = schema.Answers.model_validate(client.post("/predict/batch", files=files).raise_for_status().json())
    for content, found in zip(contents, together.answers, strict=True):
        alone = schema.Seen.model_validate(upload(client, content).json())
        assert [p.label for p in found.predictions] == [p.label for p in alone.predictions]
        assert [p.probability for p in found.predictions] == pytest.approx([p.probability for p in alone.predictions], abs=1e-6)
        assert (found.width, found.height) == (alone.width, alone.height)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"buy milk", "notes.txt", r"notes\.txt: not an image of a known format; expected an image file \(JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", r"a\.svg: not an image"),
        (b"", "nothing.png", r"nothing\.png: empty"),
        (picture(200, 100, "JPEG")[:3000], "half.jpg", r"half\.jpg: .*truncated"),
        (picture(200, 100, "PNG")[:3000], "half.png", r"half\.png: .*truncated"),
        (png_that_promises(100, 100), "hollow.png", r"hollow\.png: "),
        (b"x", "x" * 3000, r"^x{200}: not an image"),
        (picture(), "", r"file: expected an image file in a multipart field"),
    ],
)
def test_a_file_that_is_no_whole_image_is_refused_by_name(client, content, name, words):
    assert re.search(words, refused(upload(client, content, name), 422))


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "words"),
    [
        ("POST", "/predict", {"files": {"image": b"x"}}, 422, r"file: expected an image file in a multipart field"),
        ("POST", "/predict", {"data": {"file": "x"}, "files": {"other": b"x"}}, 422, r"file: expected an image file"),
        ("POST", "/predict", {}, 415, r"content type missing: expected multipart/form-data"),
        ("POST", "/predict", {"json": {"file": "x"}}, 415, r"content type application/json: expected multipart"),
        ("POST", "/predict", {"data": {"file": "x"}}, 415, r"application/x-www-form-urlencoded: expected"),
        ("POST", "/predict", {"content": b"x", "headers": {"content-type": "image/png"}}, 415, r"image/png: expected"),
        ("POST", "/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, r"boundary"),
        ("POST", "/predict", {"content": b"--b", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400,
         r"the body cannot be read"),
        ("POST", "/predict?top_k=0", {"files": {"file": picture()}}, 422, r"top_k: .*greater than or equal to 1, given '0'"),
        ("POST", "/predict?top_k=few", {"files": {"file": picture()}}, 422, r"top_k: .*integer.*given 'few'"),
        ("POST", "/predict/batch", {"files": {"file": picture()}}, 422, r"files: expected an image file"),
        ("POST", "/predict/batch", {"files": [("files", picture())] * 65}, 422, r"files: .*at most 64"),
        ("GET", "/predict", {}, 405, r"GET /predict: expected POST"),
        ("DELETE", "/health", {}, 405, r"DELETE /health: expected GET"),
        ("GET", "/prediction", {}, 404, r"/prediction: nothing there; expected POST /predict, "),
        ("POST", "/generate", {"json": {"text": "x"}}, 404, r"/generate: nothing there"),
        ("GET", "/../../etc/passwd", {}, 404, r"nothing there"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_expected(client, method, path, options, status, words):
    assert re.search(words, refused(client.request(method, path, **options), status))


def test_a_field_of_text_where_a_file_belongs_is_refused(client):
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--b--\r\n'
    response = client.post("/predict", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert "file: expected an image file" in refused(response, 422)


@pytest.mark.parametrize("size", [(400, 300), (20_000, 20_000), (65_000, 65_000)])
def test_too_many_pixels_are_refused_before_any_is_decoded(client, monkeypatch, size):
    monkeypatch.setattr(answers, "read_image", lambda content: pytest.fail("decoded"))
    words = refused(upload(client, png_that_promises(*size), "bomb.png"), 413)
    assert re.search(r"bomb\.png: [\d,]+ pixels, expected at most 100,000", words)


def test_the_pixels_of_a_batch_count_together(client):
    files = [("files", (f"{index}.png", png_that_promises(200, 200))) for index in range(3)]
    assert "0.png, 1.png, 2.png: 120,000 pixels" in refused(client.post("/predict/batch", files=files), 413)


def test_a_fault_of_the_server_shows_no_trace_and_ends_nothing(client, task, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(task, "predict", lambda inputs: 1 / 0)
        assert refused(upload(client, picture()), 500) == "the server failed on this request; its log says why"
    assert upload(client, picture()).status_code == 200


def test_the_model_is_served_as_it_predicts_without_gradients_and_noise(client, task):
    assert not task.training
    assert not any(parameter.requires_grad for parameter in task.parameters())
    first, second = (upload(client, picture()).json()["predictions"] for _ in range(2))
    assert first == second


def test_a_tagger_answers_with_all_labels_that_are_probable_enough():
    torch.manual_seed(0)
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.5], deviation=[0.3], size=[8, 8])
    task, content = build(Tagging, model=model, classes=CLASSES, frequency=[0.05 + 0.1 * n for n in range(10)]), picture()
    with standing(task) as client:
        for asked in ({}, {"least": 0}, {"least": 1}):
            expected = task.predict({"image": read_image(content)[None]}, **asked)
            answer = schema.Answer.model_validate(upload(client, content, params=asked).raise_for_status().json())
            assert [p.label for p in answer.predictions] == expected["label"][0]
            chances = expected["probability"][0].tolist()
            assert [p.probability for p in answer.predictions] == pytest.approx(chances, abs=1e-6)
            files = [("files", ("a.png", content)), ("files", ("b.png", picture(20, 30)))]
            together = client.post("/predict/batch", files=files, params=asked).raise_for_status().json()
            assert together["answers"][0]["predictions"] == [p.model_dump() for p in answer.predictions]
        assert answer.predictions == []
        assert "less than or equal to 1, given '2'" in refused(upload(client, content, params={"least": 2}), 422)
        assert client.get("/health").json()["task"] == "Tagging"
    assert [p["name"] for p in client.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]] == ["least"]


@pytest.fixture(scope="module")
def finder():
    torch.manual_seed(0)
    plain = build(SSD, backbone=build(Plain, channels=[4, 4]), num_classes=2, sizes=[[0.4], [0.8]], finest=4, channels=[])
    task = build(
        MultiBox, model=adapt(plain, standardize, mean=[0.5] * 3, deviation=[0.3] * 3, size=[16, 16]), classes=["a", "b"]
    )
    with TestClient(application.application(task, max_megapixels=0.1), raise_server_exceptions=False) as client:
        yield client


def test_a_detector_answers_with_boxes_and_with_a_picture(finder):
    file = {"file": ("cells.png", picture(40, 30))}
    scene = schema.Scene.model_validate(finder.post("/predict?least=0", files=file).raise_for_status().json())
    assert (scene.width, scene.height) == (40, 30)
    assert scene.predictions
    for found in scene.predictions:
        assert found.label in ("a", "b")
        left, top, right, bottom = found.box
        assert 0 <= left <= right <= 40
        assert 0 <= top <= bottom <= 30
    assert finder.post("/predict?least=1", files=file).json()["predictions"] == []
    drawn = finder.post("/predict/picture", files=file).raise_for_status()
    assert drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).width > 100
    health = finder.get("/health").json()
    assert (health["reads"], health["classes"], health["draws"]) == ("image", 2, True)


def test_a_detector_refuses_what_is_no_image_or_too_large(finder):
    for path in ("/predict", "/predict/picture"):
        assert finder.post(path, files={"file": ("notes.txt", b"words")}).status_code == 422
        assert finder.post(path, files={"file": ("large.png", png_that_promises(4000, 4000))}).status_code == 413


def standing(task, **limits):
    return TestClient(application.application(task, **limits), raise_server_exceptions=False)


def pixels_of(written):
    """The pixels of a PNG file in base64, as they are and as they are shown."""
    image = Image.open(io.BytesIO(base64.b64decode(written)))
    return torch.from_numpy(numpy.array(image)), torch.from_numpy(numpy.array(image.convert("RGB")))


def test_masks_come_as_run_lengths_that_are_the_task_s_own():
    torch.manual_seed(0)
    plain = build(mask_rcnn, backbone="resnet9", num_classes=2, levels=3, channels=8, hidden_dim=8, proposals=6, width=4,
                  anchor_sizes=[8, 12, 16, 24], stem="medium")  # fmt: skip
    model = adapt(plain, standardize, mean=[0.5] * 3, deviation=[0.3] * 3, size=[32, 32])
    task, content = build(TwoStageDetection, model=model, classes=["a", "b"]).eval(), picture(40, 30)
    scene = standing(task).post("/predict?least=0.1", files={"file": content}).raise_for_status().json()
    expected = task.predict({"image": read_image(content)[None]}, least=0.1)
    assert len(scene["predictions"]) == len(expected["masks"][0]) > 0
    for found, mask in zip(scene["predictions"], expected["masks"][0], strict=True):
        assert found["mask"]["size"] == [30, 40]
        assert torch.equal(run_lengths.decode(found["mask"]), mask)
    assert standing(task).post("/predict?least=1", files={"file": content}).json()["predictions"] == []


def test_a_segmenter_answers_with_the_shares_of_classes_and_their_pixels():
    torch.manual_seed(0)
    plain, content = build(unet, num_classes=3, width=4, num_stages=2), picture(20, 14)
    model = adapt(plain, standardize, mean=[0.5] * 3, deviation=[0.3] * 3, size=[16, 16])
    task = build(Segmentation, model=model, classes=CLASSES[:3])
    with standing(task) as client:
        answer = schema.Segments.model_validate(client.post("/predict", files={"file": content}).raise_for_status().json())
        assert client.post("/predict/picture", files={"file": content}).headers["content-type"] == "image/png"
        assert client.post("/predict", files={"file": b"words"}).status_code == 422
    expected = task.predict({"image": read_image(content)[None]})
    numbers, shown = pixels_of(answer.mask)
    assert torch.equal(numbers.long(), expected["segmentation"][0])
    assert torch.equal(shown, (palette(3)[numbers.long()] * 255).round().byte())
    assert {each.label: each.share for each in answer.predictions} == pytest.approx(expected["share"][0])
    for each in answer.predictions:
        assert each.share == pytest.approx(float((numbers == each.value).float().mean()))
    assert (answer.width, answer.height) == (20, 14)


def test_a_restorer_answers_with_the_picture_and_counts_the_pixels_it_makes():
    torch.manual_seed(0)
    task, content = build(Restoration, model=build(DnCNN, num_layers=3, width=4), enlarge=2), picture(20, 14)
    with standing(task, max_megapixels=0.004) as client:
        answer = schema.Picture.model_validate(client.post("/predict", files={"file": content}).raise_for_status().json())
        assert client.get("/health").json()["limits"]["pixels"] == 1000
        assert client.post("/predict", files={"file": picture(40, 30)}).status_code == 413
    made = task.predict({"image": read_image(content)[None]})["image"][0]
    assert torch.equal(pixels_of(answer.image)[0].movedim(-1, 0), made)
    assert (answer.width, answer.height) == (40, 28)


def test_health_says_what_is_served(client):
    health = schema.Health.model_validate(client.get("/health").raise_for_status().json())
    assert (health.status, health.model, health.recipe, health.task) == ("ok", "lenet", "insects", "Classification")
    assert (health.reads, health.classes, health.running, health.waiting) == ("image", 10, 0, 0)
    assert (health.limits.bytes, health.limits.pixels, health.limits.concurrency) == (200_000, 100_000, 4)
    assert client.get("/health").json()["uptime_seconds"] > health.uptime_seconds > 0


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert set(re.findall(r"[a-z]+://[^'\"\s)]+", response.text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<(script|img|iframe)[^>]+src=|@import|url\(", response.text)
    assert response.text.count("\n") < 225


def test_the_schema_documents_every_route_and_error(client):
    document = client.get("/openapi.json").raise_for_status().json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {"/", "/health", "/predict", "/predict/batch"}
    for path in ("/predict", "/predict/batch"):
        post = document["paths"][path]["post"]
        assert set(post["responses"]) == {"200", "400", "408", "413", "415", "422", "500", "503"}
        for status, response in post["responses"].items():
            held = response["content"]["application/json"]
            if status != "200":
                assert held["schema"] == {"$ref": "#/components/schemas/Problem"}
                schema.Problem.model_validate(held["example"])
        assert list(post["requestBody"]["content"]) == ["multipart/form-data"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]
    assert all("description" in operation for path in document["paths"].values() for operation in path.values())
    examples = {
        name: field["examples"][0]
        for name, field in document["components"]["schemas"]["Prediction"]["properties"].items()
    }  # fmt: skip
    schema.Prediction.model_validate(examples)


class Echo(Task):
    """Repeats itself in place of a language model."""

    reads = "text"

    def predict(self, inputs, *, length: int, temperature: float, seed: int):
        if "@" in inputs["text"][0]:
            raise ValueError("text: the character '@' is none of the vocabulary")
        return {"text": [inputs["text"][0] + "o" * length + f" {temperature:g} {seed}"]}


@pytest.fixture(scope="module")
def writer():
    with TestClient(application.application(Echo(), max_megabytes=0.2), raise_server_exceptions=False) as client:
        yield client


def test_a_text_goes_on(writer):
    asked = {"text": "hell", "length": 3, "temperature": 0.5, "seed": 7}
    answer = schema.Continuation.model_validate(writer.post("/generate", json=asked).raise_for_status().json())
    assert (answer.text, answer.seed) == ("hellooo 0.5 7", 7)
    first, second = (writer.post("/generate", json={"text": "hell"}).json() for _ in range(2))
    assert first["text"] == "hell" + "o" * 200 + f" 0.8 {first['seed']}"
    assert first["seed"] != second["seed"]
    assert writer.get("/health").json()["reads"] == "text"
    assert set(writer.get("/openapi.json").json()["paths"]) == {"/", "/health", "/generate"}


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"json": {}}, 422, r"text: Field required"),
        ({"json": {"text": "a", "length": 0}}, 422, r"length: .*greater than or equal to 1, given '0'"),
        ({"json": {"text": "a", "length": 10**9}}, 422, r"length: .*less than or equal to 4096"),
        ({"json": {"text": "a", "temperature": -1}}, 422, r"temperature: "),
        ({"json": {"text": 3}}, 422, r"text: .*string.*given '3'"),
        ({"json": ["a"]}, 422, r"body: "),
        ({"json": {"text": "a@b"}}, 422, r"text: the character '@' is none of the vocabulary"),
        ({"json": {"text": "a" * 100_001}}, 422, r"text: .*at most 100000 characters"),
        ({"content": b'{"text": "\\ud800"}', "headers": {"content-type": "application/json"}}, 422, r"text: "),
        (
            {"content": b'{"text"', "headers": {"content-type": "application/json"}},
            400,
            r"the body cannot be read as JSON: Expecting",
        ),
        (
            {"content": b'{"text": "a", "temperature": NaN}', "headers": {"content-type": "application/json"}},
            422,
            r"temperature",
        ),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400, r"the body cannot be read"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, r"the body cannot be read"),
        ({"content": b"a" * 200_001, "headers": {"content-type": "application/json"}}, 413, r"at most 200,000 bytes"),
        ({"data": {"text": "a"}}, 415, r"expected application/json"),
    ],
)
def test_a_wrong_prompt_is_told_what_is_expected(writer, options, status, words):
    assert re.search(words, refused(writer.post("/generate", **options), status))


def test_a_language_model_writes_what_it_writes_without_a_server():
    model = build(RotaryGPT, vocab_size=4, embed_dim=16, num_layers=1, num_heads=2, dropout=0.5)
    task = build(LanguageModelling, model=model, alphabet="abcd", context=8)
    asked = {"length": 20, "temperature": 0.9, "seed": 3}
    with TestClient(application.application(task)) as client:
        text = client.post("/generate", json={"text": "abba", **asked}).json()["text"]
        assert text == task.predict({"text": ["abba"]}, **asked)["text"][0]
        assert len(text) == 24
        assert "'oz' are not in the alphabet" in refused(client.post("/generate", json={"text": "zoo"}), 422)
        assert "empty, expected a text to go on from" in refused(client.post("/generate", json={"text": ""}), 422)


def test_a_classifier_of_texts_answers_as_it_does_without_a_server():
    model = build(TextCNN, vocab_size=6, num_classes=2, embed_dim=4, num_channels=3)
    task = build(TextClassification, model=model, classes=["bad", "good"], words="fine film")
    with TestClient(application.application(task)) as client:
        answer = schema.Judgement.model_validate(
            client.post("/predict", json={"text": "A fine film!"}).raise_for_status().json()
        )
        expected = task.predict({"text": ["A fine film!"]})
        assert [p.label for p in answer.predictions] == expected["label"][0]
        assert [p.probability for p in answer.predictions] == pytest.approx(expected["probability"][0].tolist(), abs=1e-6)
        assert len(client.post("/predict?top_k=1", json={"text": ""}).json()["predictions"]) == 1
        assert "Field required" in refused(client.post("/predict", json={"texts": "x"}), 422)
        assert "expected application/json" in refused(client.post("/predict", data={"text": "x"}), 415)
        health = client.get("/health").json()
        assert (health["reads"], health["classes"], health["task"]) == ("text", 2, "TextClassification")


class Dumb(Task):
    """Predicts nothing."""


class Unrepeatable(Echo):
    """Reads text, but takes no seed."""

    def predict(self, inputs, *, length: int, temperature: float):
        return inputs


@pytest.mark.parametrize("task", [Dumb, Unrepeatable])
def test_a_task_that_cannot_be_served_is_named(task):
    words = rf"^{task.__name__} cannot be served: .* or one that reads texts, with nothing else to be said$"
    with pytest.raises(ValueError, match=words):
        application.application(task())


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_megabytes", 0.0), ("max_megabytes", float("nan")), ("max_megapixels", -1.0), ("max_megapixels", 100.0),
     ("concurrency", 0), ("waiting", -1), ("timeout", 0.0)],
)  # fmt: skip
def test_a_limit_that_is_none_is_named(limit, value):
    with pytest.raises(ValueError, match=rf"^{limit}={value}: expected "):
        application.application(Echo(), **{limit: value})


BODY = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + picture()
    + b"\r\n--b--\r\n"
)
DOCUMENTED = {200, *schema.PROBLEMS} - {500}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_no_body_is_a_fault_of_the_server(client, data):
    body = bytearray(BODY)
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 40)))
        body[start:end] = data.draw(st.binary(max_size=20))
    body = bytes(body)[: data.draw(st.integers(0, len(body)) | st.none())]
    kind = data.draw(st.sampled_from(["multipart/form-data; boundary=b"] * 6 + ["multipart/form-data; boundary=", "", "a/b;;"]))
    response = client.post(
        data.draw(st.sampled_from(["/predict", "/predict/batch"])), content=body, headers={"content-type": kind}
    )
    assert response.status_code in DOCUMENTED
    assert response.status_code == 200 or list(response.json()) == ["detail"]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]), data=st.data())
def test_no_damaged_image_is_a_fault_of_the_server(client, kind, data):
    content = bytearray(picture(kind=kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    response = upload(client, bytes(content))
    assert response.status_code in (200, 413, 422)
    assert upload(client, picture()).status_code == 200


def test_the_documented_statuses_are_those_of_the_docs():
    text = Path(__file__).parents[2].joinpath("docs", "serving.md").read_text(encoding="utf8")
    assert {int(status) for status in re.findall(r"^\| (\d{3}) \|", text, re.MULTILINE)} == {*schema.PROBLEMS, 404, 405}


TOKENIZER = learn_wordpieces(["where is the cat ? the cat is in the garden"], 60)


def encoder():
    return build(BERT, vocab_size=60, context=64, embed_dim=8, num_layers=1, num_heads=2)


def test_a_task_of_pairs_of_texts_names_their_class_and_says_what_a_pair_is():
    model = build(OfText, backbone=encoder(), num_outputs=2)
    task = build(TextJudgement, model=model, classes=["no", "yes"], tokenizer=TOKENIZER, pairs=True)
    with TestClient(application.application(task)) as client:
        answer = client.post("/predict", json={"text": "the cat\tthe garden"}).raise_for_status().json()
        expected = task.predict({"text": ["the cat || the garden"]})
        assert [p["label"] for p in answer["predictions"]] == expected["label"][0]
        assert "expected two texts with a tab" in refused(client.post("/predict", json={"text": "the cat"}), 422)


def test_answers_and_vectors_of_texts_are_what_they_are_without_a_server():
    asks = build(Extraction, model=build(OfTokens, backbone=encoder(), num_outputs=2), tokenizer=TOKENIZER, longest=40)
    with TestClient(application.application(asks)) as client:
        asked = "where is the cat ? || the cat is in the garden"
        answer = client.post("/predict", json={"text": asked}).raise_for_status().json()["answer"]
        expected = asks.predict({"text": [asked]})
        assert (answer["text"], answer["start"], answer["end"]) == tuple(expected[name][0] for name in ("text", "start", "end"))
        assert "expected a question and a text" in refused(client.post("/predict", json={"text": "where ?"}), 422)
        health = client.get("/health").json()
        assert (health["reads"], health["continues"], health["classes"]) == ("text", False, None)
    vectors = build(SentenceVectors, model=encoder(), tokenizer=TOKENIZER)
    with TestClient(application.application(vectors)) as client:
        found = client.post("/predict", json={"text": "the cat"}).json()["answer"]["vector"]
        assert found == pytest.approx(vectors.vectors(["the cat"])[0].tolist(), abs=1e-6)
