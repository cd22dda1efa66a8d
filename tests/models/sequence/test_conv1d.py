"""One trunk on sound, text and a series."""

import io
import tarfile
import wave
from zipfile import ZipFile

import pytest
import torch
from definitions import equal_with_gradients, numbers
from torch import nn
from torch.nn.functional import cross_entropy, pad

from thalweg.data.sources import find
from thalweg.models.sequence.conv1d import Block, conv1d_net


def test_a_block_is_a_weighted_sum_of_neighbours_standardised_and_cut():
    block = Block(2, 3, 3).double().eval()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    x = numbers(1, 2, 6)
    padded, rows = pad(x[0], (1, 1)), []
    for channel, kernel in enumerate(block.conv.weight):
        for t in range(6):
            total = sum((padded[c, t + k] * kernel[c, k] for c in range(2) for k in range(3)), start=torch.zeros(()))
            norm = (total - block.norm.running_mean[channel]) / (block.norm.running_var[channel] + 1e-5).sqrt()
            rows.append((norm * block.norm.weight[channel] + block.norm.bias[channel]).clamp(min=0))
    equal_with_gradients(block(x).flatten(), torch.stack(rows), [x, *block.parameters()])


def test_each_group_is_twice_as_wide_and_half_as_long():
    model, extents = conv1d_net(3, in_channels=1, width=4, depths=[1, 2, 1]), []
    for stage in model.stages:
        stage.register_forward_hook(lambda _, __, x: extents.append(tuple(x.shape[1:])))
    model(torch.rand(2, 1, 20))
    assert extents == [(4, 20), (8, 10), (16, 5)]


def test_the_stem_alone_depends_on_the_domain():
    sound, text, series = conv1d_net(10, in_channels=64), conv1d_net(2, vocab_size=256), conv1d_net(3, in_channels=1)
    trunks = [{name: value.shape for name, value in model.stages.state_dict().items()} for model in (sound, text, series)]
    assert trunks[0] == trunks[1] == trunks[2]
    with pytest.raises(ValueError, match="in_channels=None, vocab_size=None: expected exactly one"):
        conv1d_net(2)
    with pytest.raises(ValueError, match="in_channels=1, vocab_size=5: expected exactly one"):
        conv1d_net(2, in_channels=1, vocab_size=5)


def spoken_digits():
    """Spectrograms of the first second of each recording, 64 frequencies at 62 times; takes 0 to 4 are held out."""
    known, asked = [], []
    with tarfile.open(find("fsdd/free-spoken-digit-dataset_5speakers.tar.xz")) as archive:
        for member in archive:
            if not member.name.endswith(("0.wav", "5.wav", "_3.wav")):  # a part is enough
                continue
            with wave.open(io.BytesIO(archive.extractfile(member).read())) as sound:
                samples = torch.frombuffer(bytearray(sound.readframes(8000)), dtype=torch.int16).float() / 2**15
            digit, _, take = member.name.rpartition("/")[2].removesuffix(".wav").split("_")
            frequencies = torch.stft(pad(samples, (0, 8000 - len(samples))), 126, 128, window=torch.hann_window(126),
                                     return_complex=True).abs()  # fmt: skip
            (asked if int(take) < 5 else known).append(((frequencies + 1e-3).log() / 3 + 1, int(digit)))
    return [(torch.stack([x for x, _ in part]), torch.tensor([y for _, y in part])) for part in (known, asked)]


def languages():
    """The bytes of English and of French sentences, cut or filled up to 40."""
    with ZipFile(find("tatoeba-fra-eng/fra-eng.zip")) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("fra.txt")]
        rows = archive.read(name).decode().splitlines()[20000:80000:60]
    sentences = [(side, language) for row in rows for language, side in enumerate(row.split("\t")[:2])]
    tokens = torch.tensor([list(text.encode()[:40].ljust(40, b"\0")) for text, _ in sentences])
    label, held_out = torch.tensor([language for _, language in sentences]), torch.arange(len(tokens)) % 10 < 2
    return [(tokens[part], label[part]) for part in (~held_out, held_out)]


def plateaus_ramps_and_slides():
    """A series that rises to a level and falls at once, or slowly one of the two; Saito's cylinder, bell and funnel."""
    label, time = torch.arange(900) % 3, torch.arange(64.0)
    start, end = 6 + 14 * torch.rand(900, 1), 40 + 18 * torch.rand(900, 1)
    way = (time - start) / (end - start)
    form = torch.stack([torch.ones_like(way), way, 1 - way])[label, torch.arange(900)] * ((way >= 0) & (way <= 1))
    x = ((5 + torch.randn(900, 1)) * form + torch.randn(900, 64))[:, None]
    return [(x[:700], label[:700]), (x[700:], label[700:])]


@pytest.mark.parametrize(
    ("domain", "arguments", "steps", "level"),
    [
        (spoken_digits, {"num_classes": 10, "in_channels": 64}, 80, 0.6),
        (languages, {"num_classes": 2, "vocab_size": 256}, 40, 0.9),
        (plateaus_ramps_and_slides, {"num_classes": 3, "in_channels": 1}, 60, 0.9),
    ],
)
def test_one_trunk_learns_sound_text_and_a_series(domain, arguments, steps, level, data_folder):
    (x, label), (held_x, held_label) = domain()
    model = conv1d_net(**arguments, width=16, depths=[1, 1, 1])
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,))
        loss = cross_entropy(model(x[chosen]), label[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (model.eval()(held_x).argmax(1) == held_label).float().mean() > level
