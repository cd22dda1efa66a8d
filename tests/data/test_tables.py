import csv
import gzip

import pytest
import torch
from torch.testing import assert_close

from thalweg.data.sources import find
from thalweg.data.tables import read_table, write_table

HOUSES = """rooms,alley,price
,Pave,127500
2,,106000
4,Grvl,178100
NA,NA,140000
"""  # the table of D2L 2.2, and a second kind of alley


def written(folder, text: str):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf8")
    return path


def test_gaps_in_numbers_take_their_mean_and_words_become_columns_of_zeros_and_ones(tmp_path):
    columns = read_table(written(tmp_path, HOUSES))
    assert {name: column.tolist() for name, column in columns.items()} == {
        "rooms": [3, 2, 4, 3],
        "alley=": [0, 1, 0, 1],
        "alley=Grvl": [0, 0, 1, 0],
        "alley=Pave": [1, 0, 0, 0],
        "price": [127500, 106000, 178100, 140000],
    }
    assert all(column.dtype == torch.float32 for column in columns.values())
    assert torch.stack(list(columns.values()), 1).shape == (4, 5)


def test_quoted_fields_other_delimiters_and_a_byte_order_mark_are_read(tmp_path):
    columns = read_table(written(tmp_path, '﻿a; "b; c"\n1e3; "x; y"\n-2; "x; y"\n\n'), delimiter=";")
    assert {name: column.tolist() for name, column in columns.items()} == {"a": [1000, -2], "b; c=x; y": [1, 1]}


def test_a_column_of_gaps_says_only_that_they_are_gaps(tmp_path):
    assert read_table(written(tmp_path, "a,b\n?,1\n,2\n"))["a="].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 fields, the header names 2"),
        ("a,a\n1,2\n", "names a column twice"),
        ("a,b\n", "at least one row"),
        ("", "at least one row"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_table(written(tmp_path, text))


def test_the_house_prices_of_ames_become_numbers_throughout(data_folder, tmp_path):
    text = gzip.decompress(find("ames-housing/kaggle_house_pred_train.csv.gz").read_bytes()).decode()
    columns = read_table(written(tmp_path, text))
    table = torch.stack(list(columns.values()), 1)
    assert table.shape[0] == 1460
    assert table.isfinite().all()
    rows = list(csv.DictReader(text.splitlines()))
    known = [float(row["LotFrontage"]) for row in rows if row["LotFrontage"] != "NA"]
    assert_close(columns["LotFrontage"].mean().item(), sum(known) / len(known), rtol=1e-5, atol=0)
    assert columns["PoolQC="].sum() == sum(row["PoolQC"] == "NA" for row in rows)


def test_a_table_that_is_written_is_read_again(tmp_path):
    columns = {"id": range(3), "name, first": ["a", 'b "c"', "d"], "price": torch.tensor([0.5, 1e10, -3.0])}
    write_table(tmp_path / "out.csv", columns)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[:2] == ['id,"name, first",price', "0,a,0.5"]
    again = read_table(tmp_path / "out.csv")
    assert torch.equal(again["price"], columns["price"])
    assert again['name, first=b "c"'].tolist() == [0, 1, 0]


def test_columns_of_unequal_length_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"columns: expected equal lengths, got \{'a': 1, 'b': 2\}"):
        write_table(tmp_path / "out.csv", {"a": [1], "b": torch.zeros(2)})
    assert not (tmp_path / "out.csv").exists()
