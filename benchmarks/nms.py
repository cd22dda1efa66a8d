"""Non-maximum suppression of 10,000 boxes on a CPU, against the greedy rule in C++, which is what torchvision's operator does.

The peer is torchvision's own operator where its compiled part loads beside this torch, else the same two loops, compiled here;
which of the two it was is in the result. over: how many times faster ours is. Both keep the same boxes, which is checked.
"""

import json
import time
from collections.abc import Callable

import compare
import torch
from torch import Tensor
from torch.utils.cpp_extension import load_inline

from thalweg.layers.boxes import nms

SOURCE = """
#include <torch/extension.h>
#include <algorithm>
#include <vector>
torch::Tensor greedy(torch::Tensor boxes, torch::Tensor score, double threshold) {
  auto order = std::get<1>(score.sort(true, 0, true)).contiguous();
  auto sides = boxes.t().contiguous();
  auto areas = ((sides[2] - sides[0]) * (sides[3] - sides[1])).contiguous();
  const float *left = sides[0].data_ptr<float>(), *top = sides[1].data_ptr<float>(), *right = sides[2].data_ptr<float>(),
    *bottom = sides[3].data_ptr<float>(), *area = areas.data_ptr<float>();
  const int64_t *rank = order.data_ptr<int64_t>(), n = boxes.size(0);
  std::vector<char> gone(n, 0);
  std::vector<int64_t> kept;
  for (int64_t a = 0; a < n; ++a) {
    const int64_t i = rank[a];
    if (gone[i]) continue;
    kept.push_back(i);
    for (int64_t b = a + 1; b < n; ++b) {
      const int64_t j = rank[b];
      if (gone[j]) continue;
      const float w = std::max(0.f, std::min(right[i], right[j]) - std::max(left[i], left[j]));
      const float h = std::max(0.f, std::min(bottom[i], bottom[j]) - std::max(top[i], top[j]));
      const float both = w * h;
      if (both / (area[i] + area[j] - both) > threshold) gone[j] = 1;
    }
  }
  return torch::tensor(kept, torch::kLong);
}
"""


def peer() -> tuple[str, Callable[[Tensor, Tensor, float], Tensor]]:
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        return f"torchvision {torchvision.__version__}", torchvision.ops.nms
    except (ImportError, RuntimeError, NotImplementedError):
        return "greedy rule in C++", load_inline("greedy_nms", SOURCE, functions="greedy", extra_cflags=["-O3"]).greedy


def anywhere(count: int, smallest: float, largest: float) -> Tensor:
    """Boxes anywhere in an image of 1000 x 1000 pixels."""
    centre, side = 1000 * torch.rand(count, 2), smallest + (largest - smallest) * torch.rand(count, 2)
    return torch.cat([centre - side / 2, centre + side / 2], 1)


def around(things: int, count: int) -> Tensor:
    """Boxes around so many things, as a detector finds them: each a tenth of its sides beside the truth."""
    boxes = anywhere(things, 50, 300)[torch.randint(things, (count,))]
    return boxes + 0.1 * torch.randn(count, 4) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def timed(function: Callable[[Tensor, Tensor, float], Tensor], boxes: Tensor, score: Tensor) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        function(boxes, score, 0.5)
        return time.perf_counter() - start

    return run


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, theirs = peer()
    facts: dict = {"peer": name, "boxes": 10_000}
    cases = {"around_20_things": around(20, 10_000), "around_200_things": around(200, 10_000),
             "around_2000_things": around(2_000, 10_000), "anywhere": anywhere(10_000, 20, 120),
             "anywhere_small": anywhere(10_000, 4, 20)}  # fmt: skip
    for case, boxes in cases.items():
        score = torch.rand(len(boxes))
        ours = nms(boxes, score, 0.5)
        assert torch.equal(ours, theirs(boxes, score, 0.5)), case
        seconds = compare.alternate({"ours": timed(nms, boxes, score), "peer": timed(theirs, boxes, score)}, 9)
        facts[case] = {"kept": len(ours), "milliseconds": {who: round(1e3 * taken, 2) for who, taken in seconds.items()},
                       "over": round(seconds["peer"] / seconds["ours"], 2)}  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
