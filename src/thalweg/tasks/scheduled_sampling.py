"""Scheduled sampling: in training a model reads some of its own guesses in place of the truth.   LEE Transformer"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ScheduledSampling(nn.Module):
    """Replaces a share of the tokens that are read by guesses, which rises linearly to `own` over own_steps batches.

    A guess is drawn from what the model says where it has read the true tokens. So a second pass reads all places at once, as
    the first does; who draws them one after the other also reads guesses that follow guesses.
    tokens: [batch time], logits: [batch time vocab] of the token after each -> [batch time]; the first stays.
    ValueError if not 0 <= own <= 1 or own_steps < 1.
    Bengio et al. 2015, arXiv:1506.03099; in two passes, as here: Mihaylova, Martins 2019.
    """

    seen: Tensor

    def __init__(self, own: float, own_steps: int):
        super().__init__()
        if not 0 <= own <= 1:
            raise ValueError(f"own={own}: expected a share from 0 to 1")
        if own_steps < 1:
            raise ValueError(f"own_steps={own_steps}: expected at least 1")
        self.own, self.own_steps = own, own_steps
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # batches, by which the share rises

    @torch.no_grad()
    def forward(
        self, tokens: Int[Tensor, "batch time"], logits: Float[Tensor, "batch time vocab"]
    ) -> Int[Tensor, "batch time"]:
        guess = logits.float().softmax(-1).flatten(0, 1).multinomial(1).view_as(tokens)
        self.seen += 1
        share = self.own * (self.seen / self.own_steps).clamp(max=1)
        chosen = torch.rand(tokens[:, 1:].shape, device=tokens.device) < share
        return torch.cat([tokens[:, :1], torch.where(chosen, guess[:, :-1], tokens[:, 1:])], 1)
