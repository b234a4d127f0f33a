"""Self-contained HTML pages: one house style, inline SVG, nothing from the network."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is inlined
# Two hues that colour-blind eyes tell apart, and that stand out on white and on black.
BLUE, ORANGE = "#2f87d6", "#d4731c"


def render(template: str, **values: Any) -> str:
    """Fill `grocer/templates/<template>`; every value is escaped unless it is Markup."""
    environment = Environment(
        loader=PackageLoader("grocer.reports"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}\u00a0%"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["figure"] = lambda value: f"{value:,.{0 if value >= 10 else 1}f}"
    environment.globals.update(blue=BLUE, orange=ORANGE)
    return environment.get_template(template).render(**values)


def new_plot(title: str, height: float = 3.6) -> tuple[Figure, Axes]:
    """A matplotlib figure of `height` inches and its axes, titled, in the page's colours.

    All are of one width, so narrow that their letters can still be read on a phone.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        return figure, axes


def svg(figure: Figure) -> Markup:
    """A figure as inline SVG, with its title for screen readers; black becomes the text colour."""
    from matplotlib import rc_context

    title = figure.axes[0].get_title(loc="left")
    buffer = io.StringIO()
    # Names of parts that figures of one page share must differ between them: hence the salt.
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
