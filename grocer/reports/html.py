"""Self-contained HTML pages: one style sheet, inline SVG, no external resources."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # replaced by the page's text colour when the SVG is inlined
# Distinguishable with any colour vision deficiency, with contrast on white and on black.
BLUE, ORANGE = "#2f87d6", "#d4731c"


def render(template: str, **values: Any) -> str:
    """Render `grocer/reports/templates/<template>`.

    In HTML, values are escaped unless they are Markup.
    """
    is_html = template.endswith(".html")
    space = "\u00a0" if is_html else " "
    environment = Environment(
        loader=PackageLoader("grocer.reports"),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=not is_html,
        lstrip_blocks=not is_html,
        keep_trailing_newline=not is_html,
    )
    environment.filters["percent"] = lambda value: (
        "not measured" if value is None else f"{100 * value:.1f}{space}%"
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["figure"] = lambda value: f"{value:,.{0 if value >= 10 else 1}f}"
    environment.globals.update(blue=BLUE, orange=ORANGE)
    return environment.get_template(template).render(**values)


def new_plot(title: str, height: float = 3.6) -> tuple[Figure, Axes]:
    """Return a matplotlib figure of `height` inches and its axes, with a title.

    All plots have the same width, so that their text is legible on a phone.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        return figure, axes


def svg(figure: Figure) -> Markup:
    """Return a figure as inline SVG, labelled by its title and in the page's text colour."""
    from matplotlib import rc_context

    title = figure.axes[0].get_title(loc="left")
    buffer = io.StringIO()
    # The salt makes element ids unique among the figures of one page.
    with rc_context({**_STYLE, "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<g id="[\w.]+">', "<g>", text)
    label = Markup("<svg role='img' aria-label='{}'").format(title)
    return Markup(text.replace("<svg", label, 1))


_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
}
