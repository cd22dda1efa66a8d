"""Students of a teacher: its words, and what it wrote instead of what people wrote."""

import torch

from thalweg.build import build, save
from thalweg.models.sequence.transformer import Transformer
from thalweg.recipes.non_autoregressive import nat_tatoeba
from thalweg.tasks.transduction import Transduction


def test_students_read_and_write_the_words_of_their_teacher(tmp_path, data_folder):
    torch.manual_seed(0)
    model = build(Transformer, source_vocab_size=7, target_vocab_size=6, embed_dim=8, num_layers=1, num_heads=2)
    teacher = build(Transduction, model=model, source_words="go run .", target_words="va .")
    save(teacher, tmp_path / "model")
    (tmp_path / "written.tsv").write_text("go .\tva .\nrun .\tva\n")
    experiment = nat_tatoeba(teacher=tmp_path)
    assert (len(experiment.task.source), len(experiment.task.target)) == (7, 6)
    assert experiment.train.size == 2
    assert experiment.notes["targets"] == f"what {tmp_path} wrote"
    assert all(not p.requires_grad for p in experiment.task.teacher.parameters())
