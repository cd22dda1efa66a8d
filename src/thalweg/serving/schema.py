"""What goes over the wire, as OpenAPI documents it."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    detail: str = Field(description="What was wrong, and what is expected.")


class Prediction(BaseModel):
    label: str = Field(examples=["cat"])
    probability: float = Field(ge=0, le=1, examples=[0.97])


class Seen(BaseModel):
    predictions: list[Prediction] = Field(description="The most probable labels, best first.")
    width: int = Field(description="Of the image, in pixels, after it was turned as its EXIF data say.", examples=[640])
    height: int = Field(examples=[480])


class Answer(Seen):
    milliseconds: float = Field(description="Time to decode and to predict, without the time to wait.", examples=[4.2])


class Answers(BaseModel):
    answers: list[Seen] = Field(description="One a file, in the order of the files.")
    milliseconds: float = Field(description="Time to decode and to predict them all.", examples=[9.1])


class Mask(BaseModel):
    size: list[int] = Field(description="Height and width of the image.", examples=[[480, 640]])
    counts: str = Field(
        description="COCO's run lengths, compressed; pycocotools.mask.decode reads them.", examples=["31PZm0i7bgRO0dbd3"]
    )


class Box(Prediction):
    box: list[float] = Field(description="Left, top, right, bottom in pixels.", examples=[[12.5, 40.0, 200.0, 310.5]])
    mask: Mask | None = Field(None, description="Its pixels, where the model tells them.")


class Scene(BaseModel):
    predictions: list[Box] = Field(description="What was found, the most probable first.")
    width: int = Field(description="Of the image, in pixels, after it was turned as its EXIF data say.", examples=[640])
    height: int = Field(examples=[480])
    milliseconds: float = Field(description="Time to decode and to predict, without the time to wait.", examples=[40.2])


class Share(BaseModel):
    label: str = Field(examples=["road"])
    share: float = Field(gt=0, le=1, description="Of the pixels of the image.", examples=[0.31])
    value: int = Field(description="Of these pixels in the mask.", examples=[3])


class Segments(BaseModel):
    predictions: list[Share] = Field(description="The classes that occur, the largest first.")
    mask: str = Field(description="A PNG file in base64; its pixels are the numbers of their classes, shown in colours.")
    width: int = Field(description="Of the image, in pixels, after it was turned as its EXIF data say.", examples=[640])
    height: int = Field(examples=[480])
    milliseconds: float = Field(description="Time to decode and to predict, without the time to wait.", examples=[90.1])


class Picture(BaseModel):
    image: str = Field(description="A PNG file in base64.")
    width: int = Field(description="Of this picture.", examples=[640])
    height: int = Field(examples=[480])
    milliseconds: float = Field(description="Time to decode and to predict, without the time to wait.", examples=[410.0])


class Prompt(BaseModel):
    text: str = Field(max_length=100_000, description="What is to be continued.", examples=["ROMEO:"])
    length: int = Field(200, ge=1, le=4096, description="Tokens to add.")
    temperature: float = Field(0.8, ge=0, le=10, description="0 takes the likeliest token; more is more surprising.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same gives the same text; without one, each is another.")


class Told(BaseModel):
    text: str = Field(
        max_length=100_000, description="What is to be read; of two texts, with a tab between.", examples=["a fine film"]
    )


class Judgement(BaseModel):
    predictions: list[Prediction] = Field(description="The most probable labels, best first.")
    milliseconds: float = Field(description="Time to predict, without the time to wait.", examples=[2.1])


class Said(BaseModel):
    answer: dict[str, Any] = Field(
        description="What the model says of the text, by name.", examples=[{"text": "Rome", "start": 17, "end": 21}]
    )
    milliseconds: float = Field(description="Time to predict, without the time to wait.", examples=[9.3])


class Continuation(BaseModel):
    text: str = Field(description="What the model makes of the prompt.", examples=["ROMEO:\nWhat light is this?"])
    seed: int = Field(description="What it was drawn with.", examples=[1234])
    milliseconds: float = Field(description="Time to generate, without the time to wait.", examples=[812.0])


class Bounds(BaseModel):
    bytes: int = Field(description="Of a request.", examples=[10_000_000])
    pixels: int = Field(description="Of the images of a request.", examples=[50_000_000])
    concurrency: int = Field(description="Answers computed at a time.", examples=[4])
    waiting: int = Field(description="Requests that may wait for their turn.", examples=[16])
    seconds: float = Field(description="For a request to come in, and for it to get its turn.", examples=[30])


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    model: str = Field(description="What the model was built by.", examples=["resnet18"])
    recipe: str | None = Field(description="Of the run that trained it.", examples=["image-classifier"])
    task: str = Field(examples=["Classification"])
    reads: Literal["image", "text"]
    classes: int | None = Field(description="How many labels there are.", examples=[10])
    draws: bool = Field(description="Whether it draws what it predicts, at /predict/picture.")
    continues: bool = Field(description="Whether it continues texts, at /generate.")
    version: str = Field(description="Of Thalweg.", examples=["0.1.0"])
    uptime_seconds: float
    running: int = Field(description="Answers being computed.")
    waiting: int = Field(description="Requests that wait for their turn.")
    limits: Bounds


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description, "content": {"application/json": {"example": {"detail": detail}}}}
    for status, description, detail in (
        (400, "The body is malformed.", "the body cannot be read: Missing boundary in multipart."),
        (408, "The body came in too slowly.", "the request did not come in within 30 seconds"),
        (413, "Too many bytes or pixels.", "the request is too large: expected at most 10,000,000 bytes"),
        (415, "Another content type.", "content type text/plain: expected multipart/form-data"),
        (422, "A field is missing or wrong.", "notes.txt: not an image of a known format; expected an image file (JPEG, ...)"),
        (500, "A fault of the server.", "the server failed on this request; its log says why"),
        (503, "Too many requests at a time; Retry-After says when to come back.", "the server is busy: ...; try again"),
    )
}
