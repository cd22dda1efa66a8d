"""What every catalogued model must do: one function a property, which fails where a model does not have it.

tests/test_catalogue_models.py puts every row of the catalogue through them; tests/test_checks.py has for each a model
that it must reject.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from thalweg.build import build, load, save, unallocated

Builder = Callable[..., nn.Module]


Input = Tensor | tuple[Tensor, ...]


def example_input(kinds: list[str], arguments: dict[str, Any], shape: list[int]) -> Input:
    """What a model of that kind is given: token ids below vocab_size, or numbers in [0, 1).

    An encoder-decoder is given a source, every second one half as long, its mask, and a target; a tagger words, letters, mask;
    a classifier of texts tokens and mask; an encoder tokens, mask and segments.
    """
    if not {"text-classifier", "encoder", "tagger"}.isdisjoint(kinds):
        mask = torch.arange(shape[1]) < torch.tensor([shape[1], shape[1] // 2]).repeat(shape[0])[: shape[0], None]
    if "text-classifier" in kinds:
        return torch.randint(arguments["vocab_size"], shape), mask
    if "encoder" in kinds:
        return torch.randint(arguments["vocab_size"], shape), mask, (torch.arange(shape[1]) > 2).long().expand(*shape)
    if "tagger" in kinds:
        return torch.randint(arguments["vocab_size"], shape[:2]), torch.randint(arguments["num_letters"], shape), mask
    if "encoder-decoder" in kinds:
        mask = torch.ones(shape, dtype=torch.bool)
        mask[1::2, shape[1] // 2 :] = False
        source, target = (torch.randint(arguments.get(f"{side}_vocab_size") or arguments["vocab_size"], shape)
                          for side in ("source", "target"))  # fmt: skip
        return source, mask, target[:, 1:]
    return torch.randint(arguments["vocab_size"], shape) if "language-model" in kinds else torch.rand(shape)


def random_model(builder: Builder, arguments: dict[str, Any]) -> nn.Module:
    """The model with numbers of order one, so that nothing hides behind a zero that it starts with; in evaluation."""
    model = build(builder, **arguments).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def is_built_without_memory(builder: Builder, arguments: dict[str, Any]) -> None:
    """On the meta device nothing is allocated, and all that a model holds is in its state dict."""
    with unallocated():
        model = builder(**arguments)
    held = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(tensor.is_meta for tensor in held.values())
    assert held.keys() <= model.state_dict().keys()
    assert model.state_dict().keys() == builder(**arguments).state_dict().keys()


def answers_as(kind: str, model: nn.Module, x: Input) -> None:
    """The shapes of the kind's protocol, and whatever else its words promise."""
    PROMISES[kind](model, x)
    ignores_the_rest_of_the_batch(model, x)


def ignores_the_rest_of_the_batch(model: nn.Module, x: Input) -> None:
    """In evaluation an example is answered as if it were alone."""
    second = tuple(part[1:2] for part in x) if isinstance(x, tuple) else x[1:2]
    whole, alone = answer(model, x), answer(model, second)
    largest = max(1.0, float(whole.detach().abs().max()))  # of large terms a small sum is as inexact as they are
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-5 * largest)


def answer(model: nn.Module, x: Input) -> Tensor:
    """The numbers that a model says about an input."""
    found = model(*x) if isinstance(x, tuple) else model(x)
    if hasattr(model, "pooled"):
        return torch.cat([found * x[1][..., None], model.pooled(found)[:, None]], 1)  # what is said of padding does not count
    if isinstance(found, dict):
        return torch.cat([said.flatten(1).float() for said in found.values()], 1)
    if isinstance(found, tuple):
        return torch.cat(found[:2], -1)
    return found.log_prob(torch.zeros_like(found.sample())) if isinstance(found, Distribution) else found


def gives_a_row_an_example(model: nn.Module, x: Tensor) -> None:
    found = model(x)
    assert found.ndim == 2
    assert len(found) == len(x)
    assert found.is_floating_point()


def gives_maps_of_half_the_extent(model: nn.Module, image: Tensor) -> None:
    extents = []
    for found in model.features(image):
        assert found.ndim == 4
        assert len(found) == len(image)
        extents.append(found.shape[-1])
    assert extents
    assert all(after in (before // 2, (before + 1) // 2) for before, after in pairwise(extents))


def looks_at_places(model: nn.Module, image: Tensor) -> None:
    """Classes and an offset at every anchor, whose centres lie in the image."""
    scores, offsets, anchors = model(image)
    assert scores.shape[:2] == offsets.shape[:2] == (len(image), len(anchors))
    assert offsets.shape[2:] == anchors.shape[1:] == (4,)
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert ((centre > 0) & (centre < 1)).all()


def looks_at_regions(model: nn.Module, image: Tensor) -> None:
    """Regions that lie in the image, and for each class of each a logit and a box."""
    found = model(image)
    regions, logits, offsets = found["regions"], found["logits"], found["offsets"]
    assert regions.shape[2:] == offsets.shape[3:] == (4,)
    assert logits.shape[:2] == regions.shape[:2]
    assert offsets.shape[:3] == logits.shape
    assert len(regions) == len(image)
    assert (regions >= 0).all()
    assert (regions <= regions.new_tensor([*image.shape[:1:-1]] * 2)).all()


def names_every_pixel(model: nn.Module, image: Tensor) -> None:
    """Logits at the extent of the image, also where it does not divide by what the model halves it to."""
    for part in (image, image[..., :-1, :-3]):
        found = model(part)
        assert found.ndim == 4
        assert (len(found), *found.shape[2:]) == (len(part), *part.shape[2:])
        assert found.is_floating_point()


def reads_backwards_only(model: nn.Module, tokens: Tensor) -> None:
    """Logits at every place, which the future does not change and a cache does not either."""
    logits = model(tokens)
    assert logits.shape[:2] == tokens.shape
    middle = tokens.shape[1] // 2
    other = tokens.clone()
    other[:, middle:] = (other[:, middle:] + 1) % logits.shape[-1]
    torch.testing.assert_close(model(other)[:, :middle], logits[:, :middle], rtol=1e-4, atol=1e-5)
    cache = model.new_cache(*tokens.shape)
    pieces = [model(tokens[:, :middle], cache), *(model(tokens[:, t : t + 1], cache) for t in range(middle, tokens.shape[1]))]
    torch.testing.assert_close(torch.cat(pieces, 1), logits, rtol=1e-4, atol=1e-4)


def writes_what_a_source_says(model: nn.Module, x: tuple[Tensor, Tensor, Tensor]) -> None:
    """Logits at every place of the target, which neither its future nor padding of the source changes.

    Nor do a cache and other targets of the same source beside it, when the two change places on the way.
    """
    (source, mask, target), same = x, {"rtol": 1e-4, "atol": 1e-4}
    logits = model(source, mask, target)
    assert logits.shape[:2] == target.shape
    middle = target.shape[1] // 2
    other = target.clone()
    other[:, middle:] = (other[:, middle:] + 1) % logits.shape[-1]
    later = model(source, mask, other)
    torch.testing.assert_close(later[:, :middle], logits[:, :middle], **same)
    padded = torch.cat([source, source[:, :2]], 1), torch.cat([mask, torch.zeros_like(mask[:, :2])], 1)
    torch.testing.assert_close(model(*padded, target), logits, **same)
    memory = model.encode(source, mask)
    both, expected = (torch.stack(pair, 1).flatten(0, 1) for pair in ((target, other), (logits, later)))
    torch.testing.assert_close(model.decode(both, memory), expected, **same)
    cache, swapped = model.new_cache(memory, 2, target.shape[1]), torch.arange(len(both)).view(-1, 2).flip(1).flatten()
    torch.testing.assert_close(model.decode(both[:, :middle], memory, cache), expected[:, :middle], **same)
    cache.reorder(swapped)
    for t in range(middle, target.shape[1]):
        found = model.decode(both[swapped, t : t + 1], memory, cache)
        torch.testing.assert_close(found, expected[swapped, t : t + 1], **same)


def reads_both_sides(model: nn.Module, x: tuple[Tensor, Tensor, Tensor]) -> None:
    """A vector of every token, which every other real token of its text changes and padding does not; the last layer's."""
    tokens, mask, segment = x
    states = model(*x)
    assert states.shape[:2] == tokens.shape
    assert torch.equal(model.layers(*x)[-1], states)
    assert model.pooled(states).shape == (len(tokens), states.shape[2])
    longer = model(*(torch.cat([part, torch.zeros_like(part[:, :2])], 1) for part in x))
    torch.testing.assert_close(longer[:, : tokens.shape[1]][mask], states[mask], rtol=1e-4, atol=1e-4)
    for place in (0, int(mask.sum(1).min()) - 1):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 2
        changed = (model(other, mask, segment) - states).abs().amax(2) > 1e-6
        assert changed[mask].all()


def labels_every_word(model: nn.Module, x: tuple[Tensor, Tensor, Tensor]) -> None:
    """Logits at every word, which padding behind the sentence does not change."""
    tokens, letters, mask = x
    logits = model(*x)
    assert logits.shape[:2] == tokens.shape
    longer = model(*(torch.cat([part, torch.zeros_like(part[:, :2])], 1) for part in x))
    torch.testing.assert_close(longer[:, : tokens.shape[1]][mask], logits[mask], rtol=1e-4, atol=1e-4)
    other = model(torch.where(mask, tokens, (tokens + 1) % 2), letters, mask)
    torch.testing.assert_close(other[mask], logits[mask], rtol=1e-4, atol=1e-4)


def reads_texts_of_any_length(model: nn.Module, x: tuple[Tensor, Tensor]) -> None:
    """A row of logits a text, which neither what stands behind its end nor more of that changes."""
    tokens, mask = x
    logits = model(*x)
    assert logits.ndim == 2
    assert len(logits) == len(tokens)
    longer = model(*(torch.cat([part, torch.zeros_like(part[:, :3])], 1) for part in x))
    torch.testing.assert_close(longer, logits, rtol=1e-4, atol=1e-4)
    other = model(torch.where(mask, tokens, (tokens + 1) % 2), mask)
    torch.testing.assert_close(other, logits, rtol=1e-4, atol=1e-4)


def reads_columns(model: nn.Module, image: Tensor) -> None:
    """Logits at every column; half as wide an image has half as many, give or take one."""
    logits, half = model(image), model(image[..., : image.shape[-1] // 2])
    assert logits.ndim == half.ndim == 3
    assert len(logits) == len(image)
    assert logits.shape[2] == half.shape[2]
    assert abs(logits.shape[1] - 2 * half.shape[1]) <= 1


def samples_from_a_latent(model: nn.Module, latent: Tensor) -> None:
    assert latent.shape[1:] == (model.latent_dim,)
    assert len(model(latent)) == len(latent)


def keeps_the_extent(model: nn.Module, image: Tensor) -> None:
    for part in (image, image[..., 1:, 3:]):
        found = model(part)
        assert found.shape == part.shape
        assert found.is_floating_point()


def gives_a_distribution(model: nn.Module, observation: Tensor) -> None:
    found = model(observation)
    assert isinstance(found, Distribution)
    assert found.batch_shape[:1] == observation.shape[:1]


PROMISES: dict[str, Callable[[nn.Module, Any], None]] = {
    "classifier": gives_a_row_an_example,
    "regressor": gives_a_row_an_example,
    "action-value": gives_a_row_an_example,
    "backbone": gives_maps_of_half_the_extent,
    "detector": looks_at_places,
    "region-detector": looks_at_regions,
    "segmenter": names_every_pixel,
    "language-model": reads_backwards_only,
    "encoder": reads_both_sides,
    "encoder-decoder": writes_what_a_source_says,
    "tagger": labels_every_word,
    "text-classifier": reads_texts_of_any_length,
    "reader": reads_columns,
    "generator": samples_from_a_latent,
    "restorer": keeps_the_extent,
    "policy": gives_a_distribution,
}


def learns_with_every_parameter(model: nn.Module, x: Input) -> None:
    """Every parameter receives a gradient that is not zero and not infinite."""
    output = answer(model, x)
    (output * torch.randn_like(output)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    assert not missing, f"no gradient for {missing}"
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)


def comes_back_from_its_folder(model: nn.Module, x: Input, folder: Path, trusted: tuple[str, ...] | None = None) -> None:
    """Saved and loaded, every tensor and every answer is the same to the last bit."""
    save(model, folder)
    loaded = load(folder, **({"trusted": trusted} if trusted else {}))
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    with torch.inference_mode():
        assert torch.equal(answer(model, x), answer(loaded, x))


def stays_finite_in_bfloat16(model: nn.Module, x: Input) -> None:
    """Products with eight bits of mantissa leave answers and gradients finite."""
    with torch.autocast("cpu", torch.bfloat16):
        output = answer(model, x)
        output.float().sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def keeps_its_names_when_compiled(model: nn.Module) -> None:
    """Compilation is in place: a checkpoint of a compiled model is one of the model."""
    before = list(model.state_dict())
    model.compile()
    assert list(model.state_dict()) == before
    assert not [name for name in before if "_orig_mod" in name]
