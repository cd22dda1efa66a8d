"""The names and shapes of a batch, and what may be asked of a model of each kind.

A batch is a dict of tensors under these names. A kind is a structural protocol: nothing inherits from it, and one
generated test holds every catalogued model against the protocol of its kind.
"""

from typing import Any, Protocol, TypedDict, runtime_checkable

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.distributions import Distribution

Image = UInt8[Tensor, "batch channel height width"] | Float[Tensor, "batch channel height width"]

Batch = dict[str, Tensor]


def scaled(image: Tensor) -> Tensor:
    """Pixels in [0, 1], float, of uint8 or of such."""
    return image if image.is_floating_point() else image.float() / 255


class LabelledImages(TypedDict):
    """Images and the class of each."""

    image: Image
    label: Int[Tensor, " batch"]


class TaggedImages(TypedDict):
    """Images and any number of labels on each: 1 where it has the class, 0 where not."""

    image: Image
    label: Float[Tensor, "batch class"]


class Scenes(TypedDict, total=False):
    """Images and what lies where in them.

    boxes: left, top, right, bottom in pixels of the image.   box_label: class of each, -1 where there is none (padding).
    masks: the pixels of each box's object.   segmentation: class of every pixel, 255 where it does not count.
    """

    image: Image
    boxes: Float[Tensor, "batch box 4"]
    box_label: Int[Tensor, "batch box"]
    masks: Bool[Tensor, "batch box height width"]
    segmentation: Int[Tensor, "batch height width"]


class LabelledFeatures(TypedDict, total=False):
    """Rows of a table with a class or a number to predict."""

    features: Float[Tensor, "batch feature"]
    label: Int[Tensor, " batch"]
    target: Float[Tensor, "batch ..."]


class SeriesWindows(TypedDict):
    """Stretches of series of numbers, and the time of each value."""

    series: Float[Tensor, "batch time feature"]
    time: Int[Tensor, "batch time"]


class TokenSequences(TypedDict, total=False):
    """Token ids of texts.

    mask: where a token is real.   begins: False where a row goes on from that of the batch before.
    """

    tokens: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    begins: Bool[Tensor, " batch"]


class Transductions(TypedDict):
    """Token ids of what is read and of what is to be written, from <bos> to <eos>; a mask is True where a token is real."""

    source_tokens: Int[Tensor, "batch read"]
    source_mask: Bool[Tensor, "batch read"]
    target_tokens: Int[Tensor, "batch time"]
    target_mask: Bool[Tensor, "batch time"]


class Experience(TypedDict):
    """What an agent saw, did and got."""

    observation: Float[Tensor, "batch ..."]
    action: Int[Tensor, " batch"] | Float[Tensor, "batch action"]
    reward: Float[Tensor, " batch"]
    next_observation: Float[Tensor, "batch ..."]
    done: Bool[Tensor, " batch"]


class Episodes(TypedDict):
    """Episodes to be played, each by the seed of its environment."""

    seed: Int[Tensor, " batch"]


@runtime_checkable
class Classifier(Protocol):
    """One logit a class."""

    def forward(self, x: Tensor) -> Float[Tensor, "batch class"]: ...


@runtime_checkable
class Regressor(Protocol):
    """One number an output."""

    def forward(self, x: Tensor) -> Float[Tensor, "batch output"]: ...


@runtime_checkable
class Backbone(Protocol):
    """One map a stage, each at half the extent of the one before."""

    def features(self, image: Tensor) -> list[Tensor]: ...


@runtime_checkable
class Detector(Protocol):
    """What is at each of many places, how its box lies as seen from the place's anchor, and the anchors.

    The anchors are boxes in shares of the image's width and height, so that they fit it whatever the extent it is seen at.
    """

    def forward(
        self, image: Tensor
    ) -> tuple[Float[Tensor, "batch anchor class"], Float[Tensor, "batch anchor 4"], Float[Tensor, "anchor 4"]]: ...


@runtime_checkable
class RegionDetector(Protocol):
    """What is in each of some regions of an image: regions [batch region 4], logits [batch region class], offsets of boxes
    [batch region class 4], and whatever else it says."""

    def forward(self, image: Tensor) -> dict[str, Tensor]: ...


@runtime_checkable
class Segmenter(Protocol):
    """Logits of the classes at every pixel of an image of whatever extent."""

    def forward(self, image: Tensor) -> Float[Tensor, "batch class height width"]: ...


@runtime_checkable
class LanguageModel(Protocol):
    """Logits of the next token at every place; a cache holds what was read before."""

    def forward(self, tokens: Int[Tensor, "batch time"], cache: Any = None) -> Float[Tensor, "batch time vocab"]: ...

    def new_cache(self, batch: int, time: int) -> Any: ...


@runtime_checkable
class Encoder(Protocol):
    """A vector of every token of a text, read from both sides, and one of the text as a whole.

    mask: where a token is real.   segment: of which text it is, where there are several.
    layers: the vectors as each layer leaves them, the last of which forward gives.
    """

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"] | None = None,
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time embed"]: ...

    def layers(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"] | None = None,
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> list[Float[Tensor, "batch time embed"]]: ...

    def pooled(self, states: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]: ...


@runtime_checkable
class Cache(Protocol):
    """What a decoder keeps of the places that it has read, of each of its rows."""

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Row r goes on from where row rows[r] is, which has the same source; a source without rows is left out."""


@runtime_checkable
class EncoderDecoder(Protocol):
    """Logits of the next target token at every place, given a source; forward = decode(target_tokens, encode(...)).

    memory: what is known of the sources, tensors of a row each; it may be decoded with `copies` targets a source, side by side.
    cache: what is kept of up to `time` places read before; `decode` brings it up to date.
    """

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]: ...

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Any: ...

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: Any, cache: Any = None
    ) -> Float[Tensor, "rows time vocab"]: ...

    def new_cache(self, memory: Any, copies: int, time: int) -> Cache: ...


@runtime_checkable
class Generator(Protocol):
    """A sample from a latent vector of `latent_dim` independent standard normal numbers."""

    latent_dim: int

    def forward(self, latent: Float[Tensor, "batch latent"]) -> Tensor: ...


@runtime_checkable
class Restorer(Protocol):
    """An image of any extent to one of the same."""

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]: ...


@runtime_checkable
class Tagger(Protocol):
    """Logits of the labels of every word of a sentence, by the words and by the letters of each."""

    def forward(
        self, tokens: Int[Tensor, "batch time"], letters: Int[Tensor, "batch time letter"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time label"]: ...


@runtime_checkable
class TextClassifier(Protocol):
    """One logit a class of every text, of any length; a mask is True where a token is real, which are the first of a row."""

    def forward(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch class"]: ...


@runtime_checkable
class Reader(Protocol):
    """Logits of every symbol, the blank first, at every column of an image of text, from left to right."""

    def forward(self, image: Tensor) -> Float[Tensor, "batch column symbol"]: ...


@runtime_checkable
class ActionValue(Protocol):
    """The expected return of every action."""

    def forward(self, observation: Tensor) -> Float[Tensor, "batch action"]: ...


@runtime_checkable
class Policy(Protocol):
    """A distribution over actions."""

    def forward(self, observation: Tensor) -> Distribution: ...


KINDS: dict[str, type] = {
    "classifier": Classifier,
    "regressor": Regressor,
    "backbone": Backbone,
    "detector": Detector,
    "region-detector": RegionDetector,
    "segmenter": Segmenter,
    "language-model": LanguageModel,
    "encoder": Encoder,
    "encoder-decoder": EncoderDecoder,
    "tagger": Tagger,
    "text-classifier": TextClassifier,
    "reader": Reader,
    "generator": Generator,
    "restorer": Restorer,
    "action-value": ActionValue,
    "policy": Policy,
}
