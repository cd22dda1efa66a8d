"""report.html: what a run did, on one page that holds its pictures itself."""

import base64
import html
import json
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import nn

from thalweg import figures
from thalweg.build import load
from thalweg.inspection.summary import Row, count_parameters, summary
from thalweg.layers.standardize import Standardized
from thalweg.training import Task
from thalweg.training.recorder import read_metrics
from thalweg.weights import write_whole


def write_report(folder: Path) -> Path:
    """Writes report.html (and the curves to figures/) from what lies in the folder of a run."""
    facts = json.loads((folder / "run.json").read_text(encoding="utf8"))
    (folder / "figures").mkdir(exist_ok=True)
    for name, drawn in _curves(read_metrics(folder / "metrics.jsonl")).items():
        drawn.savefig(folder / "figures" / f"{name}.png")
    rows: list[Row] = []
    parameters = None
    if (folder / "model" / "config.json").exists():
        task = cast(Task, load(folder / "model"))
        parameters = count_parameters(task)
        rows = _summary(task)
        if (first := _first_filters(task)) is not None:
            first.savefig(folder / "figures" / "first-layer-filters.png")
    page = _page(folder, facts, rows, parameters)
    path = folder / "report.html"
    write_whole(path, lambda part: part.write_text(page, encoding="utf8"))
    return path


def _curves(lines: list[dict[str, float]]) -> dict[str, Figure]:
    """Losses and every other metric over the steps; long training curves are averaged in windows."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "time"):
                series.setdefault(name, []).append((line["step"], value))
    drawn = {}
    losses = {name: _thin(points) for name, points in series.items() if name.endswith("loss") and not name.startswith("test")}
    if losses:
        drawn["loss"] = figures.curves(losses, ylabel="loss")
    measured = sorted(name for name in series if name.startswith("valid/") and not name.endswith("loss"))
    for name in measured if len(measured) <= 12 else []:  # a crowd of metrics is for the task's own pictures
        kind = name.removeprefix("valid/")
        drawn[kind.replace("/", "-")] = figures.curves({name: series[name]}, ylabel=kind)
    if "train/lr" in series:
        drawn["learning-rate"] = figures.curves({"lr": _thin(series["train/lr"])}, ylabel="learning rate")
    return drawn


def _thin(points: list[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    if len(points) <= most:
        return points
    parts = torch.tensor(points, dtype=torch.float64).tensor_split(most)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _summary(task: Task) -> list[Row]:
    """The modules of the task's model with shapes and operations, where it takes images of a known size."""
    model = getattr(task, "model", None)
    if not isinstance(model, Standardized):
        return []
    return summary(model, torch.zeros(1, model.channels, *model.size))


def _first_filters(task: Task) -> Figure | None:
    """The filters of the first convolution that looks at pixels."""
    first = next((m for m in task.modules() if isinstance(m, nn.Conv2d) and m.in_channels in (1, 3)), None)
    return figures.filters(first.weight) if first is not None and first.kernel_size[0] > 1 else None


def _page(folder: Path, facts: dict[str, Any], rows: list[Row], parameters: int | None) -> str:
    metrics = facts.get("metrics", {})
    cards = [(f"{held['value']:.4g}", name.replace("/", " ")) for name, held in metrics.items()]
    cards += [(f"{facts['seconds']:.1f} s", "time")] if "seconds" in facts else []
    cards += [(f"{parameters:,}", "parameters")] if parameters else []
    cards += [(_si(rows[0].flops), "operations an example")] if rows and rows[0].flops else []
    first = ["loss", *[name.partition("/")[2] for name in metrics]]
    images = sorted((folder / "figures").glob("*.png"), key=lambda p: (first.index(p.stem) if p.stem in first else 99, p.stem))
    curves = [p for p in images if p.stem in first or p.stem == "learning-rate"]
    machine, versions = facts.get("machine", {}), facts.get("versions", {})
    used = {
        "precision of products": facts.get("precision"),
        "device": facts.get("device"),
        "tensors carried to the device": facts.get("copies"),
        "memory layout": "channels-last",
        "optimiser": facts.get("optimizer"),
        "C allocator keeps memory": "yes" if facts.get("keep_memory") else "no",
        "processor": f"{machine.get('processor')}, {machine.get('threads')} threads",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "seed": facts.get("seed"),
        "commit": f"{facts.get('commit')}{' with changes' if facts.get('dirty') else ''}",
        "date": facts.get("date"),
        **facts.get("notes", {}),
    }
    arguments = {**facts.get("arguments", {}), "steps": facts.get("steps")}
    style = Path(__file__).with_name("report.css").read_text(encoding="utf8")
    return "".join([
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_e(facts['recipe'])}</title><style>{style}</style><h1>{_e(facts['recipe'])}</h1>",
        f"<p class=lead>{_e(facts.get('title', ''))}</p><div class=cards>",
        *(f"<div class=card><b>{_e(value)}</b><span>{_e(name)}</span></div>" for value, name in cards),
        "</div><h2>Run it again</h2>", f"<pre>{_e(facts['command'])}</pre>",
        "<h2>Curves</h2><div class=two>", *map(_image, curves), "</div>",
        *(f"<h2>{_e(p.stem.replace('-', ' ').capitalize())}</h2>{_image(p)}" for p in images if p not in curves),
        _table("Hyper-parameters", arguments), _table("How it ran", used), _modules(rows), "</html>\n",
    ])  # fmt: skip


def _modules(rows: list[Row]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{_e(row.name)}<td>{_e(row.kind)}<td>{'x'.join(map(str, row.shape[1:]))}<td class=n>{row.parameters:,}"
        f"<td class=n>{_si(row.flops) if row.flops else ''}"
        for row in rows
    )
    return (
        f"<h2>Model</h2><table><tr><th>module<th>kind<th>shape<th class=n>parameters<th class=n>operations</tr>{cells}</table>"
    )


def _table(title: str, values: dict[str, Any]) -> str:
    cells = "".join(f"<tr><td>{_e(name)}<td>{_e(value)}" for name, value in values.items())
    return f"<h2>{title}</h2><table>{cells}</table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<figure><img alt='{_e(path.stem)}' src='data:image/png;base64,{data}'></figure>"


def _si(number: float) -> str:
    for unit in ("", " k", " M", " G", " T"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} P"


def _e(value: Any) -> str:
    return html.escape(str(value))
