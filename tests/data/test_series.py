"""Series: parts in the order of time, windows that do not foresee, and columns of a person's own file."""

import pytest
import torch

from thalweg.data.series import eeg, in_time, leaks, read_series, sine, windows


def test_a_sine_wave_has_the_noise_that_is_said():
    series, _, _ = sine(4000, noise=0.2)
    rest = series[:, 0] - torch.sin(0.01 * torch.arange(1, 4001))
    assert rest.std().item() == pytest.approx(0.2, rel=0.05)
    assert torch.equal(series, sine(4000, noise=0.2).values)


def test_voltages_of_a_brain_come_with_matplotlib():
    series = eeg()
    assert series.values.shape == (800, len(series.names))
    assert series.values.std().item() == pytest.approx(1, abs=0.01)
    assert series.values.isfinite().all()


def test_parts_follow_each_other_in_time_and_fill_it():
    assert in_time(10, (0.6, 0.15, 0.25)) == [(0, 6), (6, 8), (8, 10)]
    for shares in ((0.5, 0.4), (1.2, -0.2)):
        with pytest.raises(ValueError, match="expected numbers above 0 whose sum is 1"):
            in_time(10, shares)
    with pytest.raises(ValueError, match=r"length=3: too short for parts of 0\.6, 0\.15, 0\.25"):
        in_time(3, (0.6, 0.15, 0.25))


def test_every_value_of_a_part_is_foretold_once_from_those_before_it():
    series = torch.arange(20.0)[:, None]
    held = windows(series, 5, 1, 12, 16)
    assert held["time"][:, 5].tolist() == [12, 13, 14, 15]
    assert torch.equal(held["series"][:, :, 0], held["time"].float())
    assert (held["time"].diff(dim=1) == 1).all()
    assert windows(series, 5, 1, 0, 12)["time"][0].tolist() == [0, 1, 2, 3, 4, 5]  # the first have no past to be foretold from
    with pytest.raises(ValueError, match="read=5, ahead=4: more than lies between 12 and 15"):
        windows(series, 5, 4, 12, 15)


def test_leaks_are_detected():
    """In the order of time nothing leaks; where examples were drawn at random nearly all do."""
    series = torch.randn(300, 1)
    (_, end), (start, stop) = in_time(300, (0.7, 0.3))
    for ahead in (1, 7):
        assert leaks(windows(series, 16, 1, 0, end), windows(series, 16, ahead, start, stop), 16) == 0
    assert leaks(windows(series, 16, 1, 0, end + 1), windows(series, 16, 4, start, stop), 16) == 1
    assert leaks(windows(series, 16, 8, 0, end), windows(series, 16, 4, start - 3, stop), 16) == 3
    whole = windows(series, 16, 1, 0, 300)
    order = torch.randperm(len(whole["time"]))
    train, test = ({name: rows[part] for name, rows in whole.items()} for part in order.split([200, len(order) - 200]))
    assert leaks(train, test, 16) > 150


def test_a_column_of_a_file_is_read_and_rows_without_a_number_are_told(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("\ufeffDate;open; close\n2020-01-01;1;2.5\n2020-01-02;2;\n\n2020-01-03;3;7\n2020-01-04;4;nan\n2020-01-05\n"
                    "2020-01-06;six;8\n")  # fmt: skip
    series = read_series(path, "close")
    assert series.values.tolist() == [[2.5], [7.0], [8.0]]
    assert series.names == ("close",)
    assert series.left_out == "3 rows without a number, lines 3, 6, 7"
    assert read_series(path).names == ("open",)  # it has the most numbers
    with pytest.raises(ValueError, match=r"column='volume': .* has Date, open, close"):
        read_series(path, "volume")
    with pytest.raises(ValueError, match="0 numbers in column 'Date'"):
        read_series(path, "Date")


def test_a_file_of_bare_numbers_needs_no_header(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("2\n4\n6\n")
    assert read_series(path).values.tolist() == [[2.0], [4.0], [6.0]]
    assert not read_series(path).left_out
    for text in ("", "\n\n", "value\n", "value\n1\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"expected at least two|has no columns"):
            read_series(path)
