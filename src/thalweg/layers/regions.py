"""Parts of a map, of whatever size, as maps of one size: what a detector looks at.   D2L 13.8"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, embedding_bag, grid_sample, pad


def spatial_pyramid_pool(
    x: Float[Tensor, "batch channel height width"], levels: Sequence[int] = (4, 2, 1)
) -> Float[Tensor, "batch feature"]:
    """The largest value of every bin of some grids over the image: a vector as long for images of every size.

    levels: bins a side of each grid; channel * sum(level^2) features.   He et al. 2014, arXiv:1406.4729.
    """
    return torch.cat([adaptive_max_pool2d(x, level).flatten(1) for level in levels], 1)


def roi_align(
    x: Float[Tensor, "batch channel height width"],
    boxes: Float[Tensor, "batch box 4"],
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Float[Tensor, "batch box channel row column"]:
    """The map within each box, bilinearly, as a grid of means: no coordinate is rounded, so boxes have gradients too.

    Each bin is the mean of r x r places in it; between pixel centres x is bilinear, up to a pixel outside as at the border,
    and 0 further out.
    boxes: x1 y1 x2 y2 in pixels of the image.   spatial_scale: extent of x over that of the image.
    sampling_ratio: r, or 0 for the extent of a bin in pixels of x, rounded up; each box has its own.
    ValueError for a size or ratio below these.   He et al. 2017, arXiv:1703.06870.
    Elsewhere: this is torchvision's roi_align with aligned=True, which gives 0 for a box without extent (here: the value at
    that point), and whose boxes are a list, or have the number of their image in front.
    """
    _check(output_size)
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio={sampling_ratio}: expected a number of places a side, or 0 for as many as pixels")
    if sampling_ratio:
        level = torch.zeros(boxes.shape[:2], dtype=torch.long, device=boxes.device)
        return pyramid_align([x], boxes, level, output_size, [spatial_scale], sampling_ratio)
    exact = torch.promote_types(x.dtype, torch.float32)
    corners = boxes.to(exact) * spatial_scale - 0.5  # pixel centres are whole numbers
    # places without number, but linear in rows and in columns: y = R x C', with a matrix a box and side
    rows = _bilinear_means(corners[..., 1], corners[..., 3], output_size[0], x.shape[2])
    columns = _bilinear_means(corners[..., 0], corners[..., 2], output_size[1], x.shape[3])
    by_row = torch.einsum("bnph,bchw->bnpcw", rows.to(x.dtype), x)
    return torch.einsum("bnpcw,bnqw->bncpq", by_row, columns.to(x.dtype))


def _bilinear_means(start: Tensor, end: Tensor, bins: int, extent: int) -> Tensor:
    """What each of `extent` pixels counts in each of the bins between start and end.   [...] -> [... bin extent]"""
    size = (end - start)[..., None] / bins
    count = size.detach().ceil().clamp(min=1)
    sample = torch.arange(int(count.amax()) if count.numel() else 1, device=start.device)
    offset = (torch.arange(bins, device=start.device)[:, None] + (sample + 0.5) / count[..., None]) * size[..., None]
    place = start[..., None, None] + offset  # [... bin sample]
    seen = (place >= -1) & (place <= extent) & (sample < count[..., None])
    pixel = torch.arange(extent, device=start.device)
    tent = (1 - (place.clamp(0, extent - 1)[..., None] - pixel).abs()).clamp(min=0)
    return (tent * seen[..., None]).sum(-2) / count[..., None]


def pyramid_align(
    maps: Sequence[Float[Tensor, "batch channel _ _"]],
    boxes: Float[Tensor, "batch box 4"],
    level: Int[Tensor, "batch box"],
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
) -> Float[Tensor, "batch box channel row column"]:
    """roi_align of all boxes at once, each in its own one of several maps.

    level: which map a box is in.   scales: extent of each map over that of the image.   sampling_ratio: r, at least 1.
    A bin is a weighted sum of (2 r)^2 pixels: a bag of a table of all pixels of all maps of all images.
    Lin et al. 2016, arXiv:1612.03144.
    """
    _check(output_size)
    exact, device = torch.promote_types(maps[0].dtype, torch.float32), boxes.device
    table = torch.cat([m.movedim(1, 3).flatten(0, 2) for m in maps]).to(exact)
    height, width, starts = [], [], [0]
    for image_map in maps:
        height.append(image_map.shape[2])
        width.append(image_map.shape[3])
        starts.append(starts[-1] + len(image_map) * height[-1] * width[-1])
    scale = torch.tensor(scales, dtype=exact, device=device)[level]
    tall, wide, start = (torch.tensor(numbers, device=device)[level] for numbers in (height, width, starts))
    start = start + torch.arange(len(boxes), device=device)[:, None] * tall * wide
    corners = boxes.to(exact) * scale[..., None] - 0.5  # pixel centres are whole numbers
    row, by_row = _bilinear_places(corners[..., 1], corners[..., 3], output_size[0], tall, sampling_ratio)
    column, by_column = _bilinear_places(corners[..., 0], corners[..., 2], output_size[1], wide, sampling_ratio)
    row = start[..., None, None] + row * wide[..., None, None]
    pixel = row[..., :, None, :, None] + column[..., None, :, None, :]  # [batch box row column 2r 2r]
    weight = by_row[..., :, None, :, None] * by_column[..., None, :, None, :]
    bags = 4 * sampling_ratio**2
    aligned = embedding_bag(pixel.reshape(-1, bags), table, per_sample_weights=weight.reshape(-1, bags), mode="sum")
    return aligned.view(*boxes.shape[:2], *output_size, -1).movedim(-1, 2).to(maps[0].dtype)


def _bilinear_places(start: Tensor, end: Tensor, bins: int, extent: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """The pixels whose weighted sum is each bin between start and end, and their weights.   [...] -> [... bin 2r] each"""
    share = (torch.arange(bins * ratio, dtype=start.dtype, device=start.device) + 0.5) / (bins * ratio)
    place = start[..., None] + share * (end - start)[..., None]
    extent = extent[..., None]
    seen = (place >= -1) & (place <= extent)
    place = place.clamp(min=0).minimum(extent - 1)
    before = place.detach().floor()
    after = place - before
    pixel = torch.stack([before.long(), (before.long() + 1).minimum(extent - 1)], -1)
    weight = torch.stack([1 - after, after], -1) * (seen / ratio)[..., None]
    return pixel.unflatten(-2, (bins, ratio)).flatten(-2), weight.unflatten(-2, (bins, ratio)).flatten(-2)


def paste(
    x: Float[Tensor, "batch box row column"], boxes: Float[Tensor, "batch box 4"], size: Sequence[int]
) -> Float[Tensor, "batch box height width"]:
    """A grid within each box as a map of the whole image, bilinearly, 0 outside: roi_align turned round.

    size: height and width of the image.   He et al. 2017, arXiv:1703.06870.
    """
    start, end = boxes.flatten(0, 1).to(x.dtype).split(2, -1)
    centre = [torch.arange(extent, dtype=x.dtype, device=x.device) + 0.5 for extent in size]
    extent = (end - start).clamp(min=1e-6)
    down = 2 * (centre[0] - start[:, 1:]) / extent[:, 1:] - 1  # -1 and 1 are the sides of the box
    across = 2 * (centre[1] - start[:, :1]) / extent[:, :1] - 1
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), -1)
    return grid_sample(x.flatten(0, 1)[:, None], grid, align_corners=False).view(*x.shape[:2], *size)


def roi_pool(
    x: Float[Tensor, "batch channel height width"],
    boxes: Float[Tensor, "batch box 4"],
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
) -> Float[Tensor, "batch box channel row column"]:
    """The map within each box as a grid of maxima; the corners of a box are rounded to whole pixels, which belong to it.

    Row i of P of a box of h rows is from floor(i h / P) to ceil((i + 1) h / P), cut at the border of x, 0 where none is left.
    boxes, spatial_scale: as in roi_align, but without a gradient.   ValueError for a size below 1.
    Girshick 2015, arXiv:1504.08083.
    Elsewhere: torchvision divides in float32, and may so take in a row or column more.
    """
    _check(output_size)
    scaled = boxes.detach() * spatial_scale
    corners = (scaled.abs() + 0.5).floor().copysign(scaled).long().tolist()  # halves away from zero
    maps = [
        adaptive_max_pool2d(_cut(image, *box), output_size) for image, of in zip(x, corners, strict=True) for box in of
    ]  # a box at a time: on a CPU faster, to hundreds of boxes, than tables of maxima that serve all at once
    if not maps:
        return x.new_zeros(*boxes.shape[:2], x.shape[1], *output_size)
    pooled = torch.stack(maps).unflatten(0, boxes.shape[:2])
    return pooled.masked_fill(pooled.isneginf(), 0)


def _cut(image: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """The pixels of a box, -inf where there are none: what lies outside wins no maximum.   [channel height width]"""
    tall, wide = max(bottom - top, 0) + 1, max(right - left, 0) + 1
    inside = image[:, max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)]
    above, before = min(max(-top, 0), tall), min(max(-left, 0), wide)
    missing = (before, wide - before - inside.shape[2], above, tall - above - inside.shape[1])
    return pad(inside, missing, value=-torch.inf) if any(missing) else inside


def _check(output_size: tuple[int, int]) -> None:
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size={output_size}: expected numbers of rows and of columns")
