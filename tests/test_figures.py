"""Drawing."""

import matplotlib

from thalweg import figures


def test_a_font_with_more_characters_is_added_to_those_chosen_where_the_machine_has_it(monkeypatch):
    monkeypatch.setattr(figures, "EASTERN", ("No Such Font", "DejaVu Serif", "DejaVu Sans Mono"))
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        figures._write_every_script.__wrapped__()
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "DejaVu Serif"]
