"""Self-contained HTML pages: one house style, inline SVG, nothing from the network."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is inlined


def render(template: str, **values: Any) -> str:
    """Fill `grocer/templates/<template>`; every value is escaped unless it is Markup."""
    environment = Environment(
        loader=PackageLoader("grocer"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}\u00a0%"
    environment.filters["count"] = lambda value: f"{value:,}"
    return environment.get_template(template).render(**values)


def new_plot(width: float = 8.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """A matplotlib figure (size in inches) and its axes, in the page's colours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def svg(figure: Figure, title: str) -> Markup:
    """A figure as inline SVG, with `title` for screen readers; black becomes the text colour."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    label = Markup("<svg role='img' aria-label='{}'").format(title)
    return Markup(text.replace("<svg", label, 1))


_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "grocer",
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
}
