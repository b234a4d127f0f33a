"""A page for a person: type a name, see its department, the probabilities, the model's card.

Nothing is loaded from elsewhere, and the policy that goes with the page allows no other script.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from grocer.config.deployment import ServingConfig
from grocer.release.bundle import CARD, Bundle

_MOST = 10


def page(
    model: str, bundle: Bundle, config: ServingConfig
) -> Callable[[Request], Awaitable[HTMLResponse]]:
    """The handler of `/ui`."""
    environment = Environment(
        loader=PackageLoader("serving.predictor"), autoescape=True, undefined=StrictUndefined
    )
    script = environment.loader.get_source(environment, "ui.js")[0]
    script = script.replace("MODEL", model).replace("TOP_K", str(min(_MOST, len(bundle.labels))))
    html = environment.get_template("ui.html").render(
        noun=bundle.config.catalogue.label,
        longest=config.max_name_characters,
        card=_html((bundle.path / CARD).read_text().partition("---\n# ")[2]),
        digest=bundle.digest,
        script=Markup(script),
    )
    known = b64encode(sha256(script.encode()).digest()).decode()
    headers = {
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{known}'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }

    async def show(_: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    return show


def _html(card: str) -> Markup:
    """The card's Markdown; HTML in it, as a label may hold, stays text."""
    html = MarkdownIt("js-default").render(card)
    scroll = '<div class="scroll" role="group" aria-label="Figures" tabindex="0"><table>'
    return Markup(html.replace("<table>", scroll).replace("</table>", "</table></div>"))
