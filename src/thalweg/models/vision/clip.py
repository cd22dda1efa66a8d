"""A network for clips: one that looks at pictures gives each a vector, a recurrent one reads these in their order.

v_t = frame(picture_t),   h_t = GRU(v_t, h_{t-1}),   logits = head(h_T), T the last picture of the clip.
Donahue et al. 2014, arXiv:1411.4389.   D2L 8
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class ClipClassifier(nn.Module):
    """frames: [batch time channel height width], mask: [batch time] (True where there is a picture) -> logits [batch class]

    frame: any classifier of images, whose `frame_dim` outputs are what is known of a picture. It sees real pictures only.
    """

    def __init__(self, frame: nn.Module, frame_dim: int, num_classes: int, hidden_dim: int = 64):
        super().__init__()
        self.frame = frame
        self.context = nn.GRU(frame_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(self, frames: Tensor, mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch class"]:
        seen = self.frame(frames[mask])
        x = seen.new_zeros(*mask.shape, seen.shape[-1]).masked_scatter(mask[..., None], seen)
        _, state = self.context(pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False))
        return self.head(state[-1])
