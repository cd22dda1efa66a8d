"""Drawing."""

import matplotlib
import pytest
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


def test_words_stand_below_their_image_in_their_colours():
    words = [[("cat", "seagreen"), ("dog", "firebrick")], [], [("cat", "firebrick")]]
    drawn = figures.captioned(torch.rand(3, 3, 4, 6), words, columns=2)
    assert [[(text.get_text(), text.get_color()) for text in axis.texts] for axis in drawn.axes] == [*words, []]
    assert [len(axis.images) for axis in drawn.axes] == [1, 1, 1, 0]
    below = [text.xyann[1] for text in drawn.axes[0].texts]
    assert 0 > below[0] > below[1]


def test_boxes_are_drawn_where_they_are_with_their_names():
    boxes = [torch.tensor([[1.0, 2.0, 5.0, 4.0]]), torch.zeros(0, 4)]
    drawn = figures.draw_boxes(torch.zeros(2, 3, 6, 8), boxes, [["cat 0.90"], []], [["C1"], []])
    (patch,), (text,) = drawn.axes[0].patches, drawn.axes[0].texts
    assert (patch.get_xy(), patch.get_width(), patch.get_height(), text.get_text()) == ((1, 2), 4, 2, "cat 0.90")
    assert not drawn.axes[1].patches


def test_classes_have_colours_that_differ():
    colours = figures.palette(24)
    distance = torch.cdist(colours, colours) + torch.eye(24) * 9
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert distance.min() > 0.15


def test_an_overlay_tints_what_has_a_class_and_says_which_are_there():
    image = torch.randint(0, 256, (2, 1, 4, 6), dtype=torch.uint8)
    segmentation = torch.randint(0, 3, (2, 4, 6))
    segmentation[0, 0], segmentation[:, 1:] = 255, 1
    colours = figures.palette(5)
    tinted = figures.tinted(image, segmentation, colours, 0.25)
    for place in ((0, 0, 0), (1, 0, 2), (1, 3, 5)):
        pixel, label = image[place[0], 0, place[1], place[2]].float() / 255, int(segmentation[place])
        expected = pixel.expand(3) if label == 255 else 0.75 * pixel + 0.25 * colours[label]
        torch.testing.assert_close(tinted[place[0], :, place[1], place[2]], expected)
    drawn = figures.overlay(image[0], segmentation[0], list("abcde"))
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["b"]


def test_a_neuron_is_the_activation_of_a_weighted_sum_and_drawn_with_its_numbers():
    x, weight = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 0.25, 4.0])
    drawn = figures.neuron(x, weight, bias=-3.0, activation="sigmoid").axes[0]
    words = [text.get_text() for text in drawn.texts]
    assert [words[0], words[2], words[4]] == ["1", "-2", "0.5"]
    assert [words[1], words[3], words[5]] == ["× 0.5", "× 0.25", "× 4"]
    total = 0.5 - 0.5 + 2 - 3
    assert words[6:] == ["sum 2\nbias -3", f"sigmoid({total:.3g})", f"{1 / (1 + 2.718281828**-total):.3g}"]
    widths = [line.get_linewidth() for line in drawn.lines[:3]]
    assert widths[0] == widths[1] < widths[2]
    assert [line.get_color() for line in drawn.lines[:3]] == ["steelblue", "firebrick", "steelblue"]
    with pytest.raises(ValueError, match="activation='step': expected one of tanh"):
        figures.neuron(x, weight, activation="step")
    with pytest.raises(ValueError, match=r"weight: \(2,\), expected as many"):
        figures.neuron(x, weight[:2])
