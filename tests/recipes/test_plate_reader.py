"""A person's own images of text become a reader of their symbols, at their shape."""

from thalweg.data.images import png
from thalweg.data.plates import plate
from thalweg.recipes.reading import plate_reader
from thalweg.training import Training


def test_own_images_named_by_their_text_become_a_reader(tmp_path):
    texts = set()
    for number in range(24):
        image, text = plate(number)
        (tmp_path / f"{text}.png").write_bytes(png(image))
        texts.add(text)
    (tmp_path / "broken.png").write_bytes(b"no image")
    experiment = plate_reader(data=tmp_path, width=2, hidden_dim=4, batch_size=8, epochs=1)
    assert experiment.task.model.size == (32, 132)  # 192x48 at a height of 32, and a column more
    assert set("".join(texts)) >= set(experiment.task.characters.alphabet)
    assert "broken.png (not an image of a known format)" in experiment.notes["left out or doubtful"]
    for step in Training(experiment, device="cpu"):
        assert step.losses
    batch = next(iter(experiment.valid))
    assert set(experiment.task.words(batch["tokens"])) <= texts
