"""Drawing: arrays in, figure out. matplotlib is imported where it draws."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from thalweg.vocabulary import scaled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fonts with Chinese, Japanese and Korean characters, which matplotlib's own has not.
EASTERN = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC",
           "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


@cache
def _write_every_script() -> None:
    """Makes matplotlib take the characters that its font lacks from another that the machine has."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    matplotlib.rcParams["font.family"] += [name for name in EASTERN if name in installed][:1]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1):
    """A figure of its own, outside pyplot's memory, and its axes [rows columns]."""
    from matplotlib.figure import Figure

    _write_every_script()
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _shown(image: Tensor) -> numpy.ndarray:
    """As matplotlib takes images.   [batch channel height width] -> [batch height width 3]"""
    return scaled(image).float().clamp(0, 1).movedim(1, -1).expand(-1, -1, -1, 3).cpu().numpy()


def image_grid(image: Tensor, titles: Sequence[str] = (), *, columns: int = 8, colours: Sequence[str] = ()) -> "Figure":
    """Images in rows.   image: [batch channel height width], uint8 or float in [0, 1]; a title and its colour each."""
    pixels = _shown(image)
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    height = 1.25 * pixels.shape[1] / pixels.shape[2] + (0.3 if titles else 0)
    figure, axes = new_figure(1.25 * columns, height * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, picture) in enumerate(zip(axes.flat, pixels, strict=False)):
        axis.imshow(picture, interpolation="nearest")
        if titles:
            axis.set_title(titles[index], fontsize=7, color=colours[index] if colours else "black")
    return figure


def captioned(image: Tensor, words: Sequence[Sequence[tuple[str, str]]], *, columns: int = 6) -> "Figure":
    """Images in rows, below each some words, a line and a colour each.   image: [batch channel height width], as image_grid"""
    pixels = _shown(image)
    columns = min(columns, len(pixels))
    rows, lines = -(-len(pixels) // columns), max(map(len, words))
    height = 1.7 * pixels.shape[1] / pixels.shape[2]
    figure, axes = new_figure(1.8 * columns, (height + 0.13 * lines + 0.15) * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, said in zip(axes.flat, pixels, words, strict=False):
        axis.imshow(picture, interpolation="nearest")
        for line, (word, colour) in enumerate(said):
            axis.annotate(word, (0, 0), (0, -2 - 9 * line), xycoords="axes fraction", textcoords="offset points", fontsize=7,
                          color=colour, va="top")  # fmt: skip
    return figure


def draw_boxes(
    image: Tensor,
    boxes: Sequence[Tensor],
    titles: Sequence[Sequence[str]] = (),
    colours: Sequence[Sequence[str]] = (),
    *,
    columns: int = 4,
    width: float = 3.2,
) -> "Figure":
    """Images with the boxes on them.   image: [batch channel height width], uint8 or float in [0, 1]

    boxes: of each image [box 4], left, top, right, bottom in pixels; titles and colours: one a box.   width: of an image, inch
    """
    from matplotlib.patches import Rectangle

    pixels = _shown(image)
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    figure, axes = new_figure(width * columns, width * rows * pixels.shape[1] / pixels.shape[2], rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, picture) in enumerate(zip(axes.flat, pixels, strict=False)):
        axis.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0))  # a box at 0 is at the edge, not in a pixel
        for number, (left, top, right, bottom) in enumerate(boxes[index].tolist()):
            colour = colours[index][number] if colours else "gold"
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2))
            if titles:
                axis.text(left, top, titles[index][number], fontsize=6, color="white", va="bottom", clip_on=True,
                          bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6})  # fmt: skip
    return figure


def picture(image: Tensor) -> "Figure":
    """An image pixel for pixel.   image: [channel height width], uint8 or float in [0, 1]"""
    from matplotlib.figure import Figure

    (pixels,) = _shown(image[None])
    figure = Figure(figsize=(pixels.shape[1] / 100, pixels.shape[0] / 100), dpi=100)
    figure.figimage(pixels)
    return figure


def confusion(counts: Tensor, classes: Sequence[str]) -> "Figure":
    """How often each class (row) was taken for each (column).   counts: [class class]"""
    size = max(4.0, 0.55 * len(classes) + 2)
    figure, axes = new_figure(size + 0.6, size)
    axis, table = axes[0, 0], counts.cpu().numpy()
    share = table / numpy.maximum(table.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axis.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(ticks, classes, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if len(classes) <= 20:
        for row in ticks:
            for column in ticks:
                if table[row, column]:
                    tone = "white" if share[row, column] > 0.5 else "black"
                    axis.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=tone)
    return figure


def heat_map(table: Tensor, xlabel: str = "", ylabel: str = "") -> "Figure":
    """Numbers as colours, with their scale beside them.   table: [row column], the first row above"""
    rows, columns = table.shape
    figure, axes = new_figure(6, min(9.0, max(1.5, 5 * rows / columns)))
    axis = axes[0, 0]
    drawn = axis.imshow(table.detach().double().cpu().numpy(), aspect="auto", interpolation="nearest")
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    figure.colorbar(drawn, pad=0.02)
    return figure


def matrices(tables: Mapping[str, Tensor], *, columns: int = 5) -> "Figure":
    """Tables beside each other: white 0, red above, blue below, as the root of the share of the largest.   [row column] each"""
    columns = min(columns, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = new_figure(1.9 * columns, 2.1 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, table) in zip(axes.flat, tables.items(), strict=False):
        share = (table / table.abs().max()).detach().double().cpu()
        axis.imshow((share.sign() * share.abs().sqrt()).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=8)
        axis.axis("on")
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def alignment(weights: Tensor, source: Sequence[str], target: Sequence[str]) -> "Figure":
    """How much each word of the target (row) looked at each of the source (column).   weights: [time read]

    Further words than there are weights are left out.
    """
    rows, columns = weights.shape
    figure, axes = new_figure(0.42 * columns + 2.2, 0.32 * rows + 1.4)
    axis = axes[0, 0]
    axis.imshow(weights.detach().float().cpu().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(columns), source[:columns], rotation=45, ha="left", fontsize=9)
    axis.set_yticks(range(rows), target[:rows], fontsize=9)
    axis.xaxis.tick_top()
    return figure


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, xlabel: str = "step", ylabel: str = "",
           log: bool = False, xlog: bool = False) -> "Figure":  # fmt: skip
    """Lines of (step, value), one a name.   log, xlog: whether equal distances upwards, to the right, are equal factors"""
    figure, axes = new_figure(6 if len(series) <= 8 else 9, 3.4)
    axis = axes[0, 0]
    many = len(series) > 8
    for number, (name, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        apart = {"color": f"C{number // 3 % 10}", "linestyle": ("-", "--", ":")[number % 3]} if many else {}
        axis.plot(x, y, label=name, linewidth=1.3, marker="o" if len(points) < 40 and not many else None, markersize=3, **apart)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    if log:
        axis.set_yscale("log")
    if xlog:
        axis.set_xscale("log")
    axis.grid(alpha=0.3)
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": -(-len(series) // 14)} if many else {}
    axis.legend(fontsize=8, **beside)
    return figure


def bars(names: Sequence[str], value: Mapping[str, Sequence[float]], *, ranked: bool = True) -> "Figure":
    """A bar a name, one picture a kind of value: one number a name.   ranked: by the first kind; if not, in the order given"""
    figure, axes = new_figure(4.2 * len(value), 0.24 * len(names) + 0.8, 1, len(value))
    first, order = next(iter(value.values())), [*range(len(names))]
    if ranked:
        order.sort(key=lambda index: first[index], reverse=True)
    for axis, (kind, numbers) in zip(axes[0], value.items(), strict=True):
        drawn = axis.barh([names[index] for index in order], [numbers[index] for index in order], color="steelblue")
        axis.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
        axis.margins(x=0.2)
        axis.locator_params(axis="x", nbins=4)
        axis.tick_params(labelsize=8)
        axis.set_title(kind, fontsize=9)
    return figure


def paths(
    height: Callable[[Tensor, Tensor], Tensor],
    start: tuple[float, float],
    window: tuple[float, float, float, float],
    paths: Mapping[str, Tensor],
    *,
    columns: int = 6,
) -> "Figure":
    """Ways down a surface, one picture a name.   window: x from, to, y from, to; paths: [step 2] each"""
    columns = min(columns, len(paths))
    figure, axes = new_figure(2.1 * columns, 2.1 * -(-len(paths) // columns), -(-len(paths) // columns), columns)
    x, y = torch.meshgrid(torch.linspace(*window[:2], 80), torch.linspace(*window[2:], 80), indexing="xy")
    level = height(x, y)
    level = (level - level.min() + 1e-3 * (level.max() - level.min())).log()  # so that the valley is seen too
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, path) in zip(axes.flat, paths.items(), strict=False):
        axis.contourf(x, y, level, 14, cmap="Blues_r", alpha=0.7)
        way = numpy.concatenate([numpy.array([start]), path.float().cpu().numpy()])
        axis.plot(*way.T, color="firebrick", linewidth=0.9)
        axis.plot(*way[-1], "o", color="black", markersize=3)
        axis.set_xlim(*window[:2])
        axis.set_ylim(*window[2:])
        axis.set_title(name, fontsize=8)
    return figure


def scatter(points: Tensor, label: Tensor, classes: Sequence[str]) -> "Figure":
    """Points of a plane in the colour of their class.   points: [point 2], label: [point]"""
    from matplotlib import colormaps

    figure, axes = new_figure(7, 5.2)
    axis, points, label = axes[0, 0], points.float().cpu(), label.cpu()
    present = label.unique().tolist()
    colours = colormaps["turbo"].resampled(len(present))
    for place, number in enumerate(present):
        x, y = points[label == number].T.numpy()
        colour = f"C{number}" if number < 10 >= len(present) else colours(place)
        axis.scatter(x, y, s=5, alpha=0.6, linewidths=0, label=classes[number], color=colour)
    axis.set_xticks([])
    axis.set_yticks([])
    columns = -(-len(present) // 24)
    axis.legend(fontsize=8, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)
    return figure


def against_truth(predicted: Tensor, target: Tensor, names: Sequence[str]) -> "Figure":
    """Predicted against true, a picture a number: on the line is right.   predicted, target: [example number]"""
    figure, axes = new_figure(4.2 * len(names), 4, 1, len(names))
    columns = zip(target.float().cpu().T.numpy(), predicted.float().cpu().T.numpy(), strict=True)
    for axis, name, (x, y) in zip(axes.flat, names, columns, strict=True):
        axis.axline((x.mean(), x.mean()), slope=1, color="gray", linewidth=1)
        axis.scatter(x, y, s=10, alpha=0.6, linewidth=0)
        axis.set_xlabel(f"true {name}")
        axis.set_ylabel(f"predicted {name}")
        axis.grid(alpha=0.3)
    return figure


def neighbourhoods(features: Tensor, perplexity: float = 15.0) -> Tensor:
    """A plane on which the neighbours of each point are those that it has in many dimensions (t-SNE).   -> [point 2]

    features: [point feature].   van der Maaten, Hinton 2008, "Visualizing data using t-SNE".
    """
    from sklearn.manifold import TSNE

    points = TSNE(perplexity=min(perplexity, (len(features) - 1) / 3), init="pca", random_state=0, max_iter=500)
    return torch.from_numpy(points.fit_transform(features.float().cpu().numpy()))


def labelled_points(points: Tensor, names: Sequence[str]) -> "Figure":
    """Points of a plane, each with its name.   points: [point 2]"""
    figure, axes = new_figure(11, 9)
    axis = axes[0, 0]
    x, y = points.float().cpu().T.numpy()
    axis.scatter(x, y, s=4, linewidths=0)
    for name, *place in zip(names, x, y, strict=True):
        axis.annotate(name, place, xytext=(2, 1), textcoords="offset points", fontsize=7, parse_math=False)
    axis.set_xticks([])
    axis.set_yticks([])
    return figure


def warped(planes: Sequence[Tensor], nets: Sequence[Tensor], label: Tensor, line: tuple[Tensor, Tensor]) -> "Figure":
    """Points of two classes, and a net drawn on their plane, after every layer; on the last the line that parts them.

    planes: [point 2] each; nets: [row column 2] each; label: [point]; line: w [2] and b of w x + b = 0.
    """
    figure, axes = new_figure(7.2, 7.4, -(-len(planes) // 3), 3)
    colours = ["firebrick" if one else "steelblue" for one in label.tolist()]
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, points, net) in enumerate(zip(axes.flat, planes, nets, strict=False)):
        threads = net.float().cpu().numpy()
        axis.plot(*threads.transpose(2, 0, 1), color="0.8", linewidth=0.5)
        axis.plot(*threads.transpose(2, 1, 0), color="0.8", linewidth=0.5)
        axis.scatter(*points.float().cpu().numpy().T, s=3, c=colours, linewidths=0)
        axis.set_title(f"after layer {number}" if number else "the plane", fontsize=8)
        low, high = threads.min((0, 1)), threads.max((0, 1))
        if number == len(planes) - 1:
            weight, bias = (part.float().cpu() for part in line)
            foot, along = -bias * weight / weight.square().sum(), torch.stack([-weight[1], weight[0]]) / weight.norm()
            axis.plot(*torch.stack([foot - 9 * along, foot + 9 * along]).T.numpy(), color="black", linewidth=1.2)
        axis.set_xlim(low[0] - 0.05, high[0] + 0.05)
        axis.set_ylim(low[1] - 0.05, high[1] + 0.05)
    return figure


def boards(image: Tensor, probability: Tensor, label: Tensor, *, columns: int = 4) -> "Figure":
    """Boards with the stones of who is to move (black) and of the other (white), the redder a point the likelier the move.

    image: [board 3 size size], the two players' stones in the first planes; probability: [board size size]; label: [board],
    the point that was played, row by row, which has a cross.
    """
    size, columns = image.shape[-1], min(columns, len(image))
    rows = -(-len(image) // columns)
    figure, axes = new_figure(2.4 * columns, 2.4 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, planes, chance, played in zip(axes.flat, image.cpu(), probability.float().cpu(), label.tolist(), strict=False):
        axis.imshow(chance.sqrt(), cmap="Reds", vmin=0, vmax=1)
        axis.hlines(range(size), 0, size - 1, color="0.7", linewidth=0.5)
        axis.vlines(range(size), 0, size - 1, color="0.7", linewidth=0.5)
        for stones, colour in zip(planes, ("black", "white"), strict=False):
            y, x = stones.nonzero().T.numpy()
            axis.scatter(x, y, s=1100 / size, c=colour, edgecolors="black", linewidths=0.6, zorder=3)
        axis.plot(played % size, played // size, "x", color="black", markersize=7, zorder=4)
    return figure


def nearest(
    image: Tensor, features: Tensor, label: Tensor, classes: Sequence[str], *, queries: int = 8, shown: int = 7
) -> "Figure":
    """A query a row, followed by the images whose features point most nearly the same way; green where the class is right.

    image: [image channel height width], features: [image feature], label: [image]; the first images are the queries.
    """
    unit = torch.nn.functional.normalize(features, dim=-1)
    found = (unit[:queries] @ unit.T).topk(min(1 + shown, len(unit))).indices
    right = label[found] == label[: len(found), None]
    colours = ["seagreen" if same else "firebrick" for same in right.flatten().tolist()]
    titles = [classes[i] for i in label[found].flatten().tolist()]
    return image_grid(image[found.flatten()], titles, columns=found.shape[1], colours=colours)


def principal_components(features: Tensor, count: int = 2) -> Tensor:
    """The features along the directions in which they vary most.   [example feature] -> [example count]"""
    centred = features - features.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:count].T


def coloured_text(text: str, value: Tensor, label: str, *, columns: int = 64) -> "Figure":
    """A text whose characters are the redder the larger their values.   value: one a character, label: what it is"""
    places, row, column = [], 0, 0
    for character in text:
        if column == columns:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    shade = numpy.full((row + 1, columns), numpy.nan)
    shade[tuple(zip(*places, strict=True))] = value.detach().float().cpu().numpy()
    figure, axes = new_figure(0.115 * columns + 1, 0.23 * (row + 1) + 0.3)
    axis = axes[0, 0]
    axis.axis("off")
    drawn = axis.imshow(shade, cmap="Reds", vmin=0, vmax=5, alpha=0.8, aspect="auto")
    for (y, x), character in zip(places, text, strict=True):
        axis.text(x, y, character.replace("\n", "\u21b5"), family="monospace", fontsize=9, ha="center", va="center")
    figure.colorbar(drawn, label=label, pad=0.01)
    return figure


def texts(rows: Sequence[tuple[str, str, str]], *, columns: int = 100) -> "Figure":
    """Texts below each other, and under each some words about it, in a colour.   rows: text, words, colour"""
    lines = list[tuple[str, str]]()
    for text, words, colour in rows:
        lines += [(line, "black") for line in textwrap.wrap(text, columns) or [""]] + [(words, colour), ("", "black")]
    figure, axes = new_figure(0.066 * columns + 0.4, 0.2 * len(lines) + 0.4)
    axis = axes[0, 0]
    axis.axis("off")
    axis.set_ylim(len(lines), 0)
    for row, (line, colour) in enumerate(lines):
        axis.text(0, row + 0.5, line, color=colour, fontsize=8, va="center", parse_math=False)
    return figure


def pieces(rows: Sequence[Sequence[tuple[str, str]]], titles: Sequence[str] = (), *, columns: int = 110) -> "Figure":
    """Texts piece by piece, each in a colour ("" for plain), one text below the other.   titles: of the texts"""
    margin, line, words = 2 + max(map(len, titles), default=-2), 0, []
    for number, row in enumerate(rows):
        column = margin
        if titles:
            words.append((line, 0, titles[number], "gray"))
        for piece, colour in row:
            if column > margin and column + len(piece) > columns:
                line, column = line + 1, margin
            words.append((line, column, piece, colour))
            column += len(piece) + 1
        line += 2
    figure, axes = new_figure(0.068 * columns, 0.2 * line + 0.1)
    axis = axes[0, 0]
    axis.axis("off")
    axis.set(xlim=(0, columns), ylim=(line - 1, -0.6))
    for y, x, piece, colour in words:
        box = {"facecolor": colour, "alpha": 0.25, "edgecolor": "none", "pad": 1} if colour not in ("", "gray") else None
        axis.text(x, y, piece, family="monospace", fontsize=8, va="center", color=colour or "black", bbox=box)
    return figure


def filters(weight: Tensor) -> "Figure":
    """The first-layer filters of a convolution.   weight: [out in height width], shown in colour where in is 3"""
    weight = weight.detach().float().cpu()[:64]
    if weight.shape[1] != 3:
        weight = weight[:, :1]
    low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
    return image_grid((weight - low) / (high - low).clamp(min=1e-8), columns=16)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh, "ReLU": torch.relu, "leaky ReLU": functional.leaky_relu, "GELU": functional.gelu,
    "sigmoid": torch.sigmoid, "hard sigmoid": functional.hardsigmoid, "ELU": functional.elu, "SELU": functional.selu,
    "softplus": functional.softplus, "SiLU (Swish)": functional.silu, "Mish": functional.mish,
    "hard Swish": functional.hardswish,
}  # fmt: skip


def activations() -> "Figure":
    """The activation functions of torch (lines) and their slopes (dashes), the first row as in LBDL Fig. 4.5."""
    figure, axes = new_figure(9, 6.4, 3, 4)
    x = torch.linspace(-4, 4, 321, requires_grad=True)
    for axis, (name, function) in zip(axes.flat, ACTIVATIONS.items(), strict=True):
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.axvline(0, color="0.8", linewidth=0.8)
        axis.plot(x.detach(), y.detach(), linewidth=1.6)
        axis.plot(x.detach(), slope, linewidth=1, linestyle="--", color="firebrick")
        axis.set_ylim(-2, 4)
        axis.set_title(name, fontsize=9)
    return figure


def neuron(x: Tensor, weight: Tensor, bias: float = 0.0, activation: str = "ReLU") -> "Figure":
    """One neuron at work: inputs times weights, their sum and the bias, the activation of that, which is what goes out.

    y = activation(w x + b).   x, weight: [input]; lines are the thicker the more an input counts, red where it counts
    against.   activation: of ACTIVATIONS.   ValueError for another, or for unequal numbers of inputs and weights.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    if x.shape != weight.shape or x.ndim != 1:
        raise ValueError(f"x: {tuple(x.shape)}, weight: {tuple(weight.shape)}, expected as many weights as inputs")
    terms = (x * weight).tolist()
    total = torch.tensor(sum(terms) + bias)
    figure, axes = new_figure(6.4, max(2.0, 0.55 * len(terms)))
    axis = axes[0, 0]
    axis.axis("off")
    axis.set_xlim(-0.6, 4.2)
    largest = max(max(map(abs, terms)), 1e-12)
    for number, (value, w, term) in enumerate(zip(x.tolist(), weight.tolist(), terms, strict=True)):
        y = (len(terms) - 1) / 2 - number
        colour = "firebrick" if term < 0 else "steelblue"
        axis.plot([0, 2], [y, 0], color=colour, linewidth=0.5 + 3 * abs(term) / largest, zorder=1)
        axis.text(0, y, f"{value:.3g}", ha="right", va="center", fontsize=9)
        axis.text(0.7, 0.65 * y, f"× {w:.3g}", ha="center", va="center", fontsize=8, bbox={"facecolor": "white", "pad": 0.5,
                                                                                           "edgecolor": "none"})  # fmt: skip
    axis.plot([2, 3.4], [0, 0], color="black", linewidth=1.5, zorder=1)
    axis.scatter([2], [0], s=2600, color="white", edgecolors="black", zorder=2)
    axis.text(2, 0, f"sum {total - bias:.3g}\nbias {bias:.3g}", ha="center", va="center", fontsize=7, zorder=3)
    axis.text(2.85, 0.08, f"{activation}({total:.3g})", ha="center", va="bottom", fontsize=8)
    axis.text(3.45, 0, f"{ACTIVATIONS[activation](total):.3g}", ha="left", va="center", fontsize=10)
    return figure


def feature_maps(x: Tensor) -> "Figure":
    """The channels of an activation, each from its least (black) to its largest value (white).   x: [channel height width]"""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return image_grid(((x - low) / (high - low).clamp(min=1e-8))[:, None], [str(channel) for channel in range(len(x))])


def palette(count: int) -> Tensor:
    """Colours far apart, one a class: hues go round by the golden angle, light and dark in turns.   [count 3] in [0, 1]"""
    from matplotlib.colors import hsv_to_rgb

    number = numpy.arange(count)
    hue, value = (0.45 + number * (3 - 5**0.5) / 2) % 1, 1 - 0.2 * (number % 2)
    return torch.from_numpy(hsv_to_rgb(numpy.stack([hue, numpy.ones(count), value], 1))).float()


def tinted(image: Tensor, segmentation: Tensor, colours: Tensor, strength: float = 0.55) -> Tensor:
    """Images with the colour of its class on every pixel; where the class is none of the colours, they stay as they are.

    image: [batch channel height width], uint8 or float in [0, 1]; segmentation: [batch height width]; colours: [class 3].
    """
    pixels = scaled(image)
    named = segmentation < len(colours)
    colour = colours.to(pixels)[segmentation.where(named, 0)].movedim(-1, 1)
    return torch.where(named[:, None], torch.lerp(pixels, colour, strength), pixels)


def topmost(masks: Tensor, label: Sequence[int]) -> Tensor:
    """The label of the first mask that holds each pixel, 255 where none does.   [thing height width] -> [height width]"""
    held = masks.new_full(masks.shape[1:], 255, dtype=torch.long)
    for mask, number in zip(masks.flip(0), label[::-1], strict=True):
        held[mask] = number
    return held


def overlay(image: Tensor, segmentation: Tensor, classes: Sequence[str]) -> "Figure":
    """An image with the class of each pixel as a colour on it, and which is which.

    image: [channel height width], segmentation: [height width].
    """
    return segmentations({"": tinted(image[None], segmentation[None], palette(len(classes)))}, segmentation, classes, width=6.0)


def segmentations(
    pictures: Mapping[str, Tensor], segmentation: Tensor, classes: Sequence[str], *, width: float = 2.6
) -> "Figure":
    """Rows of pictures of the same scene, one a name, with a legend of the classes in the segmentation.

    pictures: [row channel height width] each, float in [0, 1].   width: of a picture, inch
    """
    from matplotlib.patches import Patch

    rows, _, high, wide = next(iter(pictures.values())).shape
    figure, axes = new_figure(width * len(pictures) + 1.2, width * high / wide * rows + 0.2, rows, len(pictures))
    for column, (name, picture) in enumerate(pictures.items()):
        axes[0, column].set_title(name, fontsize=9)
        for axis, pixels in zip(axes[:, column], _shown(picture), strict=True):
            axis.axis("off")
            axis.imshow(pixels, interpolation="nearest")
    colours, present = palette(len(classes)).tolist(), segmentation.unique().tolist()
    patches = [Patch(color=colours[label], label=classes[label]) for label in present if label < len(classes)]
    if patches:
        figure.legend(handles=patches, loc="outside right upper", fontsize=8, ncols=-(-len(patches) // 24))
    return figure


def polygons(
    points: Sequence[Tensor], corners: Sequence[Sequence[int]], colours: Sequence[str], *, columns: int = 6
) -> "Figure":
    """Sets of points, each with a polygon whose corners are some of them.   points: [point 2] each; corners: their places"""
    columns = min(columns, len(points))
    rows = -(-len(points) // columns)
    figure, axes = new_figure(1.7 * columns, 1.7 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, places, path, colour in zip(axes.flat, points, corners, colours, strict=False):
        axis.plot(*places.cpu().numpy().T, ".", color="0.3", markersize=4)
        axis.plot(*places[[*path, *path[:1]]].cpu().numpy().T, color=colour, linewidth=1.2)
        axis.set_aspect("equal")
    return figure
