"""Heads: what a model does with its last features is taken off, and put on, without touching the rest."""

import torch
from torch import Tensor, nn


def without_head(model: nn.Module) -> nn.Module:
    """The model up to its head: the features of an example instead of logits.   forward(x) -> [batch feature]

    ValueError if the model has no submodule named `head`.
    """
    if not isinstance(getattr(model, "head", None), nn.Module):
        raise ValueError(f"model: {type(model).__name__} has no head; it has {[name for name, _ in model.named_children()]}")
    model.head = nn.Identity()
    return model


class Probe(nn.Module):
    """A linear classifier, or a small network, on the features of an encoder that does not learn.

    logits = W normalise(encoder(x)) + b, every feature brought to mean 0 and variance 1, so that features of any scale
    are read equally well.   encoder: x -> [batch feature]
    hidden_dim: units of a layer between, W_2 relu(W_1 normalise(encoder(x)) + b_1) + b_2, or None.
    Alain, Bengio 2016, arXiv:1610.01644.
    """

    def __init__(self, encoder: nn.Module, feature_dim: int, num_classes: int, hidden_dim: int | None = None):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.norm = nn.BatchNorm1d(feature_dim, affine=False)
        self.head: nn.Module = nn.Linear(hidden_dim or feature_dim, num_classes)
        if hidden_dim:
            self.head = nn.Sequential(nn.Linear(feature_dim, hidden_dim), nn.ReLU(), nn.Dropout(), self.head)

    def train(self, mode: bool = True) -> "Probe":
        """The encoder stays as it is in evaluation: its running statistics are not to learn either."""
        super().train(mode)
        self.encoder.eval()
        return self

    def read(self, features: Tensor) -> Tensor:
        """Features that the encoder made before, [batch feature] -> [batch class]"""
        return self.head(self.norm(features))

    def forward(self, x: Tensor) -> Tensor:  # -> [batch class]
        with torch.no_grad():
            features = self.encoder(x)
        return self.read(features)


def probe(encoder: nn.Module, *, feature_dim: int, num_classes: int, hidden_dim: int | None = None) -> nn.Module:
    """The encoder, frozen, below a linear classifier or a small network, see Probe."""
    return Probe(encoder, feature_dim, num_classes, hidden_dim)
