"""The Transformer against torch's, and what its blocks must and must not know of each other."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from thalweg.layers.cross_attention import Attention, Block
from thalweg.layers.position import sinusoidal
from thalweg.models.sequence.transformer import Transformer


def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source, target = torch.randint(11, (3, 7)), torch.randint(9, (3, 5))
    return source, torch.arange(7) < torch.tensor([[7], [3], [5]]), target


def copied(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    for layer, weight, bias in zip((ours.query, ours.key, ours.value), theirs.in_proj_weight.chunk(3),
                                   theirs.in_proj_bias.chunk(3), strict=True):  # fmt: skip
        weight.data.copy_(layer.weight)
        bias.data.copy_(layer.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_and_decoder_are_those_of_torch(norm_first):
    ours = Transformer(11, 9, embed_dim=8, num_layers=2, num_heads=2, hidden_dim=12, norm_first=norm_first).double().eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.4)
    theirs = nn.Transformer(8, 2, 2, 2, 12, norm_first=norm_first, batch_first=True).double().eval()
    for side in ("encoder", "decoder"):
        for block, layer in zip(getattr(ours, side), getattr(theirs, side).layers, strict=True):
            copied(layer.self_attn, block.attention)
            norms = [block.attention_norm, block.mlp_norm]
            if side == "decoder":
                copied(layer.multihead_attn, block.cross)
                norms.insert(1, block.cross_norm)
            for number, norm in enumerate(norms, 1):
                getattr(layer, f"norm{number}").load_state_dict(norm.state_dict())
            layer.linear1.load_state_dict(block.up.state_dict())
            layer.linear2.load_state_dict(block.down.state_dict())
        if norm_first:
            getattr(theirs, side).norm.load_state_dict(getattr(ours, f"{side}_norm").state_dict())
        else:
            getattr(theirs, side).norm = None
    source, mask, target = pair()
    embedded = [ours.embedded(source, ours.source_embedding), ours.embedded(target, ours.target_embedding)]
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected = theirs(*embedded, tgt_mask=causal, src_key_padding_mask=~mask, memory_key_padding_mask=~mask)
    assert_close(ours(source, mask, target), expected @ ours.target_embedding.weight.T, rtol=1e-9, atol=1e-9)


def test_sublayers_add_to_what_they_are_given_and_the_perceptron_sees_one_place():
    block = Block(8, 2, 12, 0.0, norm_first=True, crosses=True).double()
    x, memory = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 7, 8, dtype=torch.float64)
    other = x.clone()
    other[:, 3] += 1
    changed = (block.think(other) - block.think(x)).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False, False, False, True, False]
    key, value = block.cross.read(memory)
    for linear in (block.attention.output, block.cross.output, block.down):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    same = block.think(block.look(block.attend(x), key, value, torch.ones(2, 1, 1, 7, dtype=torch.bool)))
    assert torch.equal(same, x)


@pytest.mark.parametrize("cross", ["last", "same", "all"])
def test_which_layers_of_the_encoder_a_layer_of_the_decoder_looks_at(cross):
    model = Transformer(11, 9, embed_dim=8, num_layers=3, num_heads=2, cross=cross).eval()
    source, mask, _ = pair()
    added = [nn.Parameter(torch.zeros(8)) for _ in range(3)]  # to what each layer of the encoder gives
    for block, bias in zip(model.encoder, added, strict=True):
        block.think = lambda x, think=block.think, bias=bias: think(x) + bias
    for number, (key, _) in enumerate(model.encode(source, mask).read):
        slopes = torch.autograd.grad(key.square().sum(), added, retain_graph=True, allow_unused=True)
        reached = [slope is not None and bool(slope.any()) for slope in slopes]
        assert reached == [cross != "same" or layer <= number for layer in range(3)]  # also through the layers between
    if cross == "all":
        assert_close(model.mixture.softmax(1), torch.full((3, 3), 1 / 3))
    else:
        assert model.mixture is None


def test_a_target_depends_on_its_source_and_alignments_are_shares_of_it():
    model = Transformer(11, 9, embed_dim=8, num_layers=2, num_heads=2).eval()
    source, mask, target = pair()
    looked = model.alignment(source, mask, target)
    assert looked.shape == (3, 5, 7)
    assert_close(looked.sum(-1), torch.ones(3, 5))
    assert not looked[1, :, 3:].any()
    other = source.clone()
    other[0, 2] = (other[0, 2] + 1) % 11
    apart = (model(other, mask, target) - model(source, mask, target)).abs().amax((1, 2))
    assert apart[0] > 1e-4
    assert apart[1:].max() < 1e-6


def test_targets_that_fork_cross_and_are_given_up_say_what_they_say_when_read_whole():
    model = Transformer(11, 9, embed_dim=8, num_layers=2, num_heads=2).double().eval()
    source, mask, _ = pair()
    memory, copies, history = model.encode(source, mask), 4, torch.empty(12, 0, dtype=torch.long)
    cache, going, forked = model.new_cache(memory, copies, 12), [0, 1, 2], 0
    for step in range(10):
        tokens = torch.randint(9, (len(history), 3 if step == 1 else 1))
        history = torch.cat([history, tokens], 1)
        found, whole = model.decode(tokens, memory, cache), model.decode(history, memory)
        assert_close(found, whole[:, -tokens.shape[1] :], rtol=0, atol=1e-10)
        kept = range(len(going)) if step not in (4, 7) else range(1, len(going))
        rows = torch.cat([copies * number + torch.randint(copies, (copies,)) for number in kept])
        forked += len({*rows.tolist()}) < len(rows)
        going, history = [going[number] for number in kept], history[rows]
        memory = model.encode(source[going], mask[going])
        cache.reorder(rows)
    assert going == [2]
    assert forked > 5
    with pytest.raises(ValueError, match="cache: 52 places to keep, made for time=48"):
        model.decode(history[:, :1], memory, cache)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="embed_dim=9, cross='last': expected a multiple of num_heads=2"):
        Transformer(5, 5, embed_dim=9, num_heads=2)
    with pytest.raises(ValueError, match="cross='first'"):
        Transformer(5, 5, embed_dim=8, num_heads=2, cross="first")


class Alone(nn.Module):
    """Blocks of an encoder, used alone: each place reads all (as in BERT), or those before it (as in GPT)."""

    def __init__(self, vocab_size: int, causal: bool):
        super().__init__()
        self.causal, self.embedding, self.head = causal, nn.Embedding(vocab_size, 32), nn.Linear(32, vocab_size)
        self.blocks = nn.ModuleList(Block(32, 4, 64, 0.0, norm_first=True, crosses=False) for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        x = x + sinusoidal(0, tokens.shape[1], 32, x)
        for block in self.blocks:
            x = block.think(block.attend(x, causal=self.causal))
        return self.head(x)


def test_an_encoder_alone_and_a_decoder_alone_are_the_same_blocks():
    block, x = Block(8, 2, 12, 0.0, norm_first=True, crosses=False).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    backward = block.think(block.attend(x, causal=True))
    for t in range(5):  # a place that reads all there is, where nothing comes after it, is one that reads backwards
        assert_close(block.think(block.attend(x[:, : t + 1]))[:, t], backward[:, t], rtol=0, atol=1e-10)
    assert not torch.allclose(block.think(block.attend(x))[:, 0], backward[:, 0])


@pytest.mark.slow
def test_alone_they_learn_to_fill_in_and_to_go_on():
    text = 20 * "the cat sat on a mat and saw one big red fox "
    alphabet = {letter: number for number, letter in enumerate(sorted(set(text)))}
    tokens, gap = torch.tensor([alphabet[letter] for letter in text]), len(alphabet)
    found = {}
    for causal in (False, True):
        torch.manual_seed(0)
        model = Alone(gap + 1, causal)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(300):
            rows = tokens[torch.randint(len(tokens) - 17, (16, 1)) + torch.arange(17)]
            asked = torch.rand(16, 16) < (1.0 if causal else 0.2)
            read = rows[:, :-1] if causal else rows[:, 1:].masked_fill(asked, gap)
            loss = nn.functional.cross_entropy(model(read)[asked], rows[:, 1:][asked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[causal] = loss.item()
    share = tokens.bincount() / len(tokens)
    chance = -(share * share.log()).sum()
    assert found[True] < chance - 2
    assert found[False] < chance - 1


def test_with_norms_first_the_gradient_of_the_last_layer_shrinks_with_depth_and_with_norms_after_it_does_not():
    """So at the start norms after need small steps, a warm-up.   Xiong et al. 2020, arXiv:2002.04745"""
    slopes = {}
    for norm_first in (True, False):
        for depth in (2, 24):
            torch.manual_seed(0)
            blocks = [Block(16, 2, 64, 0.0, norm_first, crosses=False) for _ in range(depth)]
            for block in blocks:
                for weight in block.parameters():
                    if weight.ndim == 2:
                        nn.init.xavier_normal_(weight)
            norm = nn.LayerNorm(16) if norm_first else nn.Identity()
            x = torch.randn(8, 10, 16)
            for block in blocks:
                x = block.think(block.attend(x))
            loss = nn.functional.cross_entropy(norm(x).flatten(0, 1), torch.randint(16, (80,)))
            slopes[norm_first, depth] = torch.autograd.grad(loss, blocks[-1].down.weight)[0].norm()
    assert slopes[True, 24] < 0.5 * slopes[True, 2]
    assert slopes[False, 24] > 0.8 * slopes[False, 2]
    assert slopes[False, 24] > 3 * slopes[True, 24]
