"""The HTML page of an evaluation: one file, plots drawn by Plotly that is part of it."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

GROUPS = {"Accuracy": ("HR@20", "MRR@20", "NDCG@20", "MAP@20"),
          "Targets not in the history": ("new_only.HR@20", "new_only.MRR@20", "new_only.NDCG@20"),
          "Short histories and new items": ("cold_users.HR@20", "cold_users.MRR@20", "cold_items.HR@20"),
          "Breadth": ("coverage@20", "gini@20")}  # fmt: skip


def write_report(path: Path, found: dict[str, Any], sentences: Sequence[str]) -> None:
    """Write the page; `sentences` say what the run was and how it came out."""
    models = {"headrace": found, **found["baselines"]}
    figures = []
    for title, names in GROUPS.items():
        bars = [go.Bar(name=model, x=list(names), y=[values.get(name) for name in names])
                for model, values in models.items()]  # fmt: skip
        figures.append(_drawn(bars, title, barmode="group"))
    if found.get("by_category"):
        categories = list(found["by_category"])
        bars = [go.Bar(name=model, x=categories, y=[values["by_category"][name].get("HR@20") for name in categories])
                for model, values in models.items()]  # fmt: skip
        figures.append(_drawn(bars, "HR@20 by category of the target", barmode="group"))
    if "reliability" in found:
        said, came = ([row[name] for row in found["reliability"]] for name in ("said", "came"))
        lines = [go.Scatter(x=[0, max(said)], y=[0, max(said)], mode="lines", name="as said", line_dash="dot"),
                 go.Scatter(x=said, y=came, mode="markers+lines", name="headrace")]  # fmt: skip
        figures.append(_drawn(lines, "Reliability: how likely it was said to be, and how often it came"))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{values[name]:.4f}</td>" if isinstance(values.get(name), float) else "<td>–</td>"
                  for values in models.values())
        + "</tr>"
        for name in found if isinstance(found[name], float) and "@" in name
    )  # fmt: skip
    heads = "".join(f"<th>{escape(model)}</th>" for model in models)
    facts = f"{found['n']:,} predictions after {found['train_events']:,} events on {found['items']:,} items"
    about = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>headrace evaluation</title>"
        "<style>body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.2em .8em;text-align:right}td:first-child{text-align:left}</style>"
        f"<script>{get_plotlyjs()}</script><h1>Evaluation</h1><p>{escape(facts)}.</p>"
        f"{about}{''.join(figures)}<table><tr><th></th>{heads}</tr>{rows}</table>"
    )


def _drawn(traces: list[Any], title: str, **layout: Any) -> str:
    figure = go.Figure(traces, go.Layout(title=title, height=360, template="plotly_white", **layout))
    return str(figure.to_html(full_html=False, include_plotlyjs=False))
