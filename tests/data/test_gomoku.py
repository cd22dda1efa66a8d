"""Five in a row: the rules in loops, the player's arithmetic, and games that keep the rules."""

import pytest
import torch

from thalweg.data.gomoku import OTHER, OWN, games, point_names, read_board, symmetries, won, worth
from thalweg.data.streams import generator

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def fives(size):
    """Every line of five points that fits on the board."""
    for row in range(size):
        for column in range(size):
            for down, right in STEPS:
                line = [(row + k * down, column + k * right) for k in range(5)]
                if all(0 <= y < size and 0 <= x < size for y, x in line):
                    yield line


def some_boards(count, size, share):
    taken = torch.rand(count, size, size)
    return (taken < share).float(), (taken > 1 - share).float()


def test_five_in_a_row_win_in_every_direction_and_nothing_else_does():
    for line in fives(7):
        board = torch.zeros(2, 7, 7)
        for y, x in line:
            board[0, y, x] = 1
        board[1] = board[0]
        board[1, line[2][0], line[2][1]] = 0  # four with a gap
        assert won(board).tolist() == [True, False]
    stones, _ = some_boards(60, 6, 0.6)
    naive = [any(all(board[y, x] for y, x in line) for line in fives(6)) for board in stones]
    assert 5 < sum(naive) < 55
    assert won(stones).tolist() == naive


def test_the_worth_of_a_move_is_the_sum_over_lines_of_five_through_it():
    own, other = some_boards(4, 6, 0.3)
    own[0], other[0] = 0, 0
    expected = torch.zeros(4, 6, 6)
    for board in range(4):
        for line in fives(6):
            mine, theirs = (int(sum(stones[board, y, x] for y, x in line)) for stones in (own, other))
            value = 0.0 if mine and theirs else OTHER[min(theirs, 4)] if theirs else OWN[min(mine, 4)]
            for y, x in line:
                expected[board, y, x] += value
    expected[(own + other) > 0] = -torch.inf
    torch.testing.assert_close(worth(own, other), expected)


def test_four_are_made_five_and_the_four_of_the_other_are_stopped():
    board = read_board("......./.xxxx../......./.oooo../......./......./.......")[0] > 0
    best = worth(board[:1].float(), board[1:2].float()).flatten().argmax()
    assert divmod(int(best), 7)[0] == 1
    best = worth(torch.zeros(1, 7, 7), board[1:2].float()).flatten().argmax()
    assert divmod(int(best), 7)[0] == 3


def test_games_keep_the_rules():
    played = games(25, size=9, seed=1, opening=4)
    image, label = played["image"], played["label"]
    own, other, empty = (image > 0).unbind(1)
    assert image.unique().tolist() == [0, 255]
    assert (own.int() + other.int() + empty.int() == 1).all()
    stones = (own | other).flatten(1).sum(1)
    assert stones.min() == 4
    assert ((own.flatten(1).sum(1) - other.flatten(1).sum(1)).abs() <= 1).all()
    assert empty.flatten(1)[torch.arange(len(label)), label].all()  # a move is to an empty point
    assert not won(own.float()).any()  # nobody goes on after a win
    assert not won(other.float()).any()
    move = torch.nn.functional.one_hot(label, 81).view(-1, 9, 9).bool()
    ends = won((own | move).float())
    assert ends.any()
    before = worth(own.float(), other.float()).flatten(1)
    chosen = before[torch.arange(len(label)), label]
    assert (chosen >= 0.9899 * before.max(1).values).all()
    follows = {(str(a.tolist()), str(b.tolist())) for a, b in zip(own, other, strict=True)}
    dead = 0
    for index in (~ends).nonzero()[::20, 0].tolist():  # the other player sees what was played, unless it is a draw
        mine, theirs = other[index], (own | move)[index]
        drawn = worth(mine[None].float(), theirs[None].float()).max() <= 0
        assert drawn or (str(mine.tolist()), str(theirs.tolist())) in follows
        dead += int(drawn)
    assert dead < 10


def test_games_are_a_function_of_the_seed():
    first, again, other = games(2, 6, 3), games(2, 6, 3), games(2, 6, 4)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"][:2], other["image"][:2])


def test_a_turned_or_mirrored_board_has_its_move_at_the_turned_or_mirrored_point():
    image = torch.zeros(5, 3, 6, 6, dtype=torch.uint8)
    label = torch.tensor([0, 7, 20, 33, 35])
    image[torch.arange(5), 0, label // 6, label % 6] = 255
    places = set()
    for number in range(60):
        changed = symmetries()({"image": image, "label": label}, generator(number))
        assert torch.equal(changed["image"][:, 0].flatten(1).argmax(1), changed["label"])
        places.add(int(changed["label"][1]) * 36 + int(changed["label"][2]))
    assert len(places) == 8


def test_a_board_is_read_from_its_rows():
    image = read_board("x.o/.../..x")
    assert image.shape == (1, 3, 3, 3)
    assert image[0, 0].nonzero().tolist() == [[0, 0], [2, 2]]
    assert image[0, 1].nonzero().tolist() == [[0, 2]]
    assert image[0].sum() == 9 * 255
    assert point_names(3) == ["A3", "B3", "C3", "A2", "B2", "C2", "A1", "B1", "C1"]
    with pytest.raises(ValueError, match=r"board: \['z'\], expected x, o, \. and /"):
        read_board("z.o/.../..x")
    with pytest.raises(ValueError, match=r"board: rows of \[3, 2, 3\] points, expected 3 rows of 3"):
        read_board("x.o/../..x")
    with pytest.raises(ValueError, match=r"count=1, size=4: expected .* 5 points a side"):
        games(1, size=4)
