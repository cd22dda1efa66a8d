"""Every check of tests/checks.py can fail: for each a model that it must reject, next to one that it lets through."""

import checks
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from thalweg.models.sequence.seq2seq import States

OURS = (f"{__name__}.",)
X = torch.rand(4, 3)
TOKENS = torch.randint(5, (2, 8))
IMAGE = torch.rand(2, 3, 8, 8)


class Good(nn.Module):
    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return self.head(x) * self.scale


class NotPersistent(Good):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3), persistent=False)


class Allocating(Good):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(torch.eye(2, 3, device="cpu"))


class Reading(Good):
    def __init__(self) -> None:
        super().__init__()
        self.depth = int(torch.ones(2).sum())


@pytest.mark.parametrize("builder", [NotPersistent, Allocating, Reading])
def test_what_needs_memory_or_hides_a_tensor_is_rejected(builder):
    checks.is_built_without_memory(Good, {})
    with pytest.raises((AssertionError, RuntimeError)):
        checks.is_built_without_memory(builder, {})


class ThreeAxes(Good):
    def forward(self, x):
        return super().forward(x)[..., None]


class OneRowTooFew(Good):
    def forward(self, x):
        return super().forward(x)[1:]


class Classes(Good):
    def forward(self, x):
        return super().forward(x).long()


class Mixing(Good):
    def forward(self, x):
        return super().forward(x - x.mean(0))


@pytest.mark.parametrize("kind", ["classifier", "regressor", "action-value"])
@pytest.mark.parametrize("builder", [ThreeAxes, OneRowTooFew, Classes, Mixing])
def test_what_gives_no_row_an_example_or_mixes_examples_is_rejected(kind, builder):
    checks.answers_as(kind, Good(), X)
    with pytest.raises(AssertionError):
        checks.answers_as(kind, builder(), X)


class Maps(nn.Module):
    def __init__(self, *steps: int, flat: bool = False) -> None:
        super().__init__()
        self.steps, self.flat = steps, flat

    def features(self, image):
        maps = [image[..., ::step, ::step] for step in self.steps]
        return [found.flatten(1) for found in maps] if self.flat else maps

    def forward(self, image):
        return image.mean((2, 3))


@pytest.mark.parametrize("model", [Maps(1, 4), Maps(2, 2), Maps(), Maps(1, 2, flat=True)])
def test_a_backbone_whose_maps_do_not_halve_is_rejected(model):
    checks.answers_as("backbone", Maps(1, 2, 4), IMAGE)
    with pytest.raises(AssertionError):
        checks.answers_as("backbone", model, IMAGE)


class Names(nn.Module):
    def __init__(self, extent: int = 1) -> None:
        super().__init__()
        self.extent = extent

    def forward(self, image):
        height, width = (side // self.extent * self.extent for side in image.shape[2:])
        return image[..., :height, :width]


def test_a_segmenter_that_leaves_pixels_out_is_rejected():
    checks.answers_as("segmenter", Names(), IMAGE)
    with pytest.raises(AssertionError):
        checks.answers_as("segmenter", Names(4), IMAGE)


class Counting(nn.Module):
    """Says how often it has read each token so far; the cache is what it has counted."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake = mistake

    def new_cache(self, batch, time):
        return [torch.zeros(batch, 1, 5)]

    def forward(self, tokens, cache=None):
        seen = nn.functional.one_hot(tokens, 5).float()
        counted = seen.sum(1, keepdim=True).expand_as(seen) if self.mistake == "reads the future" else seen.cumsum(1)
        if cache is not None and self.mistake != "forgets":
            counted = counted + cache[0]
            cache[0] = counted[:, -1:]
        return counted[:, 1:] if self.mistake == "is short" else counted


@pytest.mark.parametrize("mistake", ["reads the future", "forgets", "is short"])
def test_a_language_model_that_reads_ahead_or_forgets_is_rejected(mistake):
    checks.answers_as("language-model", Counting(), TOKENS)
    with pytest.raises(AssertionError):
        checks.answers_as("language-model", Counting(mistake), TOKENS)


class Comparing(nn.Module):
    """Says how often a token stood in the source, and how often in the target so far; the memory is the former count."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake, self.counting = mistake, Counting(mistake)

    def encode(self, source, mask):
        seen = nn.functional.one_hot(source, 5).float()
        return (seen if self.mistake == "reads padding" else seen * mask[..., None]).sum(1, keepdim=True)

    def new_cache(self, memory, copies, time):
        return States([torch.zeros(len(memory) * copies, 1, 5)])

    def decode(self, target, memory, cache=None):
        copies = len(target) // len(memory)
        beside = memory.repeat(copies, 1, 1) if self.mistake == "mixes up" else memory.repeat_interleave(copies, 0)
        return self.counting(target, cache) - 2 * beside

    def forward(self, source, mask, target):
        return self.decode(target, self.encode(source, mask))


@pytest.mark.parametrize("mistake", ["reads the future", "forgets", "is short", "reads padding", "mixes up"])
def test_an_encoder_decoder_that_reads_what_it_must_not_or_forgets_is_rejected(mistake):
    x = checks.example_input(["encoder-decoder"], {"source_vocab_size": 5, "target_vocab_size": 5}, [2, 8])
    checks.answers_as("encoder-decoder", Comparing(), x)
    with pytest.raises(AssertionError):
        checks.answers_as("encoder-decoder", Comparing(mistake), x)


class Spelling(nn.Module):
    """Says how often each letter stands in a word, less how often in the whole sentence."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake = mistake

    def forward(self, tokens, letters, mask):
        counts = nn.functional.one_hot(letters, 5).sum(2).float() + tokens[..., None]
        return counts - (counts if self.mistake == "reads padding" else counts * mask[..., None]).sum(1, keepdim=True)


class Columns(nn.Module):
    """Reads each column of an image for itself, or only the first few."""

    def __init__(self, most=None):
        super().__init__()
        self.most = most

    def forward(self, image):
        return image.mean(1).mT[:, : self.most]


def test_a_reader_that_does_not_read_to_the_end_is_rejected():
    checks.answers_as("reader", Columns(), torch.rand(2, 3, 8, 12))
    with pytest.raises(AssertionError):
        checks.answers_as("reader", Columns(most=5), torch.rand(2, 3, 8, 12))


def test_a_tagger_that_reads_padding_is_rejected():
    x = checks.example_input(["tagger"], {"vocab_size": 5, "num_letters": 5}, [2, 6, 4])
    checks.answers_as("tagger", Spelling(), x)
    with pytest.raises(AssertionError):
        checks.answers_as("tagger", Spelling("reads padding"), x)


class Average(nn.Module):
    """The mean of a text's words, or of whatever stands in its row."""

    def __init__(self, blind=False):
        super().__init__()
        self.embedding, self.blind = nn.Embedding(5, 3), blind

    def forward(self, tokens, mask):
        real = torch.ones_like(mask) if self.blind else mask
        return (self.embedding(tokens) * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def test_a_classifier_of_texts_that_reads_padding_is_rejected():
    x = checks.example_input(["text-classifier"], {"vocab_size": 5}, [2, 6])
    checks.answers_as("text-classifier", Average(), x)
    with pytest.raises(AssertionError):
        checks.answers_as("text-classifier", Average(blind=True), x)


class Gathering(nn.Module):
    """Every token hears the sum of all real ones, or, with a fault, of all there are or of those before it."""

    def __init__(self, fault=""):
        super().__init__()
        self.embedding, self.fault = nn.Embedding(5, 3), fault

    def layers(self, tokens, mask, segment):
        x = self.embedding(tokens) + segment[..., None]
        heard = x if self.fault == "reads padding" else x * mask[..., None]
        return [x, x + (heard.cumsum(1) if self.fault == "reads backwards only" else heard.sum(1, keepdim=True))]

    def forward(self, tokens, mask, segment):
        return self.layers(tokens, mask, segment)[-1]

    def pooled(self, states):
        return states[:, 0]


@pytest.mark.parametrize("fault", ["reads padding", "reads backwards only"])
def test_an_encoder_that_reads_padding_or_backwards_only_is_rejected(fault):
    x = checks.example_input(["encoder"], {"vocab_size": 5}, [2, 6])
    checks.answers_as("encoder", Gathering(), x)
    with pytest.raises(AssertionError):
        checks.answers_as("encoder", Gathering(fault), x)


def test_a_generator_of_another_latent_is_rejected():
    checks.answers_as("generator", Good(), X)
    with pytest.raises(AssertionError):
        checks.answers_as("generator", Good(), torch.rand(4, 2))


class Same(nn.Module):
    def forward(self, image):
        return image + 0


class OfEvenExtent(nn.Module):
    def forward(self, image):
        return nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(image[..., : image.shape[-1] // 2 * 2], 2), 2)


class Whole(nn.Module):
    def forward(self, image):
        return (image * 255).to(torch.uint8)


@pytest.mark.parametrize("model", [OfEvenExtent(), Whole(), Maps(1)])
def test_a_restorer_that_changes_the_extent_or_gives_whole_numbers_is_rejected(model):
    checks.answers_as("restorer", Same(), IMAGE)
    with pytest.raises((AssertionError, RuntimeError)):
        checks.answers_as("restorer", model, IMAGE)


class Chooses(Good):
    def forward(self, x):
        return Categorical(logits=super().forward(x))


class ChoosesOnce(Good):
    def forward(self, x):
        return Categorical(logits=super().forward(x).mean(0))


@pytest.mark.parametrize("builder", [Good, ChoosesOnce])
def test_a_policy_that_gives_no_distribution_an_observation_is_rejected(builder):
    checks.answers_as("policy", Chooses(), X)
    with pytest.raises(AssertionError):
        checks.answers_as("policy", builder(), X)


class Forgotten(Good):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(3, 2)


class Detached(Forgotten):
    def forward(self, x):
        return super().forward(x) + self.other(x).detach()


class Nothing(Forgotten):
    def forward(self, x):
        return super().forward(x) + 0 * self.other(x)


class Explodes(Forgotten):
    def forward(self, x):
        return super().forward(x) + (self.other(x) * 0).sqrt()


@pytest.mark.parametrize("builder", [Forgotten, Detached, Nothing, Explodes])
def test_a_parameter_that_does_not_learn_is_rejected(builder):
    checks.learns_with_every_parameter(Good(), X)
    with pytest.raises(AssertionError):
        checks.learns_with_every_parameter(builder(), X)


class Unsaved(Good):
    """Draws a number that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = float(torch.rand((), device="cpu"))

    def forward(self, x):
        return super().forward(x) + self.offset


class Different(Good):
    """Keeps its state in one type and takes it back in another."""

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict[f"{prefix}scale"] = state_dict[f"{prefix}scale"].double()
        super()._load_from_state_dict(state_dict, prefix, *rest)


@pytest.mark.parametrize("builder", [Unsaved, Different])
def test_what_does_not_come_back_from_its_folder_is_rejected(builder, tmp_path):
    checks.comes_back_from_its_folder(checks.random_model(Good, {}), X, tmp_path / "good", OURS)
    with pytest.raises(AssertionError):
        checks.comes_back_from_its_folder(checks.random_model(builder, {}), X, tmp_path / "bad", OURS)


class Cancelling(Good):
    """1.001 - 1 is zero with eight bits of mantissa."""

    def forward(self, x):
        return (super().forward(x) * 0 + 1.001 - 1).log()


class InfiniteGradient(Good):
    def forward(self, x):
        y = super().forward(x)
        return (y - y.detach()).abs().sqrt()


@pytest.mark.parametrize("builder", [Cancelling, InfiniteGradient])
def test_what_is_not_finite_in_bfloat16_is_rejected(builder):
    checks.stays_finite_in_bfloat16(Good(), X)
    with pytest.raises(AssertionError):
        checks.stays_finite_in_bfloat16(builder(), X)


class Wrapped(Good):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.compile(self.head)


class Renaming(Good):
    def compile(self):
        self.fast = nn.Linear(3, 2)


@pytest.mark.parametrize("builder", [Wrapped, Renaming])
def test_what_changes_its_names_when_compiled_is_rejected(builder):
    checks.keeps_its_names_when_compiled(Good())
    with pytest.raises(AssertionError):
        checks.keeps_its_names_when_compiled(builder())
