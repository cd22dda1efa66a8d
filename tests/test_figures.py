"""Drawing."""

import matplotlib
import torch

from thalweg import figures


def test_a_font_with_more_characters_is_added_to_those_chosen_where_the_machine_has_it(monkeypatch):
    monkeypatch.setattr(figures, "EASTERN", ("No Such Font", "DejaVu Serif", "DejaVu Sans Mono"))
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        figures._write_every_script.__wrapped__()
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "DejaVu Serif"]


def test_principal_components_are_the_directions_of_most_variance():
    x = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    values = torch.linalg.eigvalsh(torch.cov(x.T))
    found = figures.principal_components(x)
    torch.testing.assert_close(torch.cov(found.T).diagonal(), values[-2:].flip(0), rtol=0, atol=1e-10)


def test_each_query_is_followed_by_the_images_of_the_most_similar_direction_green_where_of_its_class():
    angle = torch.tensor([0.0, 2.0, 0.1, 2.1, 0.3])
    features = torch.stack([angle.cos(), angle.sin()], 1) * torch.rand(5, 1).add(0.1)
    image, label = torch.zeros(5, 1, 2, 2), torch.tensor([0, 1, 1, 1, 0])
    drawn = figures.nearest(image, features, label, ["cat", "dog"], queries=2, shown=2)
    titles = [(axis.get_title(), axis.title.get_color()) for axis in drawn.axes]
    green, red = "seagreen", "firebrick"
    assert titles == [("cat", green), ("dog", red), ("cat", green), ("dog", green), ("dog", green), ("cat", red)]


def test_only_classes_that_occur_are_in_the_legend_of_a_map_each_in_a_colour_of_its_own():
    label = torch.arange(60) % 15 * 3
    axis = figures.scatter(torch.rand(60, 2), label, [f"class {n}" for n in range(100)]).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [f"class {3 * n}" for n in range(15)]
    assert len({tuple(points.get_facecolor()[0]) for points in axis.collections}) == 15


def test_boxes_are_drawn_where_they_are_with_their_names():
    boxes = [torch.tensor([[1.0, 2.0, 5.0, 4.0]]), torch.zeros(0, 4)]
    drawn = figures.draw_boxes(torch.zeros(2, 3, 6, 8), boxes, [["cat 0.90"], []], [["C1"], []])
    (patch,), (text,) = drawn.axes[0].patches, drawn.axes[0].texts
    assert (patch.get_xy(), patch.get_width(), patch.get_height(), text.get_text()) == ((1, 2), 4, 2, "cat 0.90")
    assert not drawn.axes[1].patches
