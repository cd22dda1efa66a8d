"""Gomoku, five in a row: its rules, a player that counts lines, and the games that it plays against itself.

Two players put stones on the points of a square board in turn; who has five or more in a row, along a row, a column or a
diagonal, has won; where neither can have that any more, it is a draw. All games are played at once: what lies on every line
of five is a convolution.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d

from thalweg.data.streams import Augment, generator
from thalweg.vocabulary import Batch

OWN = (1.0, 15.0, 200.0, 4000.0, 1e6)  # worth of a line of five on which the player to move has so many stones, the other none
OTHER = (1.0, 10.0, 150.0, 2000.0, 1e5)  # and of one on which the other has so many


def _directions() -> Tensor:
    """A row, a column and the two diagonals.   [4 1 5 5]"""
    middle = torch.zeros(5, 5)
    middle[2] = 1
    return torch.stack([middle, middle.T, torch.eye(5), torch.eye(5).flip(0)])[:, None]


def lines(stones: Tensor) -> Tensor:
    """How many stones lie on the line of five in each direction around each point.   [game size size] -> [game 4 size size]"""
    return conv2d(stones[:, None].float(), _directions(), padding=2)


def won(stones: Tensor) -> Tensor:
    """Whether there are five in a row.   stones: [game size size] of one player -> [game]"""
    return (lines(stones) == 5).flatten(1).any(1)


def worth(own: Tensor, other: Tensor) -> Tensor:
    """How good a move to each point is: the sum of the worths of all lines of five through it that one player can still fill.

    own, other: stones [game size size] of who is to move, and of the opponent; points that are taken are worth -inf.
    """
    mine, theirs = lines(own), lines(other)
    on_board = lines(torch.ones_like(own)) == 5
    value = torch.where(theirs == 0, torch.tensor(OWN)[mine.long().clamp(max=4)], 0.0)
    value = torch.where((mine == 0) & (theirs > 0), torch.tensor(OTHER)[theirs.long().clamp(max=4)], value) * on_board
    total = conv2d(value, _directions().transpose(0, 1), padding=2)[:, 0]
    return total.masked_fill((own + other) > 0, -torch.inf)


def games(count: int, size: int = 9, seed: int = 0, *, opening: int = 4) -> Batch:
    """Positions of games of the line-counting player against itself, and its moves.

    Every game begins with `opening` stones at random; then the move is one of those of the most worth, within a hundredth.
    image: [position 3 size size], 0 or 255: stones of who is to move, of the other, empty points; label: the point, row by
    row.   ValueError for a board below 5 points a side.
    """
    if size < 5 or count < 1:
        raise ValueError(f"count={count}, size={size}: expected at least a game, and 5 points a side for five in a row")
    random = generator(seed, size)
    own, other = torch.zeros(2, count, size, size)
    images, labels = [], []
    for number in range(size * size):
        value = worth(own, other)
        alive = value.flatten(1).amax(1) > 0
        own, other, value = own[alive], other[alive], value[alive]
        if not len(own):
            break
        chance = torch.rand(own.shape, generator=random)
        move = (value * (1 - 0.01 * chance) if number >= opening else chance.where(value >= 0, -1)).flatten(1).argmax(1)
        if number >= opening:
            images.append(torch.stack([own, other, 1 - own - other], 1).mul(255).byte())
            labels.append(move)
        own = own.flatten(1).scatter(1, move[:, None], 1.0).view_as(own)
        goes_on = ~won(own)
        own, other = other[goes_on], own[goes_on]
    return {"image": torch.cat(images), "label": torch.cat(labels)}


def symmetries() -> Augment:
    """One of the eight turns and reflections of the board, for the whole batch: the game is the same."""

    def change(batch: Batch, random: Generator) -> Batch:
        turns, mirror = int(torch.randint(4, (), generator=random)), bool(torch.randint(2, (), generator=random))
        size = batch["image"].shape[-1]
        point = torch.arange(size * size).view(size, size)
        moved = _moved(point, turns, mirror).flatten()  # what point has come to each
        return {**batch, "image": _moved(batch["image"], turns, mirror), "label": moved.argsort()[batch["label"]]}

    return change


def _moved(board: Tensor, turns: int, mirror: bool) -> Tensor:
    turned = board.rot90(turns, (-2, -1))
    return turned.flip(-1) if mirror else turned


def read_board(text: str) -> Tensor:
    """A position from its rows, with / between: x of who is to move, o of the other, . for an empty point.   [1 3 size size]

    ValueError for other signs, or where the rows are no square.
    """
    rows = text.strip().split("/")
    if unknown := sorted(set(text.strip()) - set("xo./")):
        raise ValueError(f"board: {unknown}, expected x, o, . and / between the rows")
    if {len(row) for row in rows} != {len(rows)}:
        raise ValueError(f"board: rows of {[len(row) for row in rows]} points, expected {len(rows)} rows of {len(rows)}")
    return torch.tensor([[[255 * (sign == kind) for sign in row] for row in rows] for kind in "xo."]).byte()[None]


def point_names(size: int) -> list[str]:
    """The points row by row, from the top: column letter and row number, A1 below left."""
    return [f"{chr(ord('A') + column)}{size - row}" for row in range(size) for column in range(size)]
