"""The web page at `/ui`: predict one product, and read the model card.

The page loads no other resource, and its Content-Security-Policy allows no other script.
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
from grocer.release.bundle import LoadedBundle
from grocer.release.manifest import CARD

_TOP_K = 10


def page(
    model: str, bundle: LoadedBundle, config: ServingConfig
) -> Callable[[Request], Awaitable[HTMLResponse]]:
    """Return the handler of `/ui`."""
    environment = Environment(
        loader=PackageLoader("serving.predictor"), autoescape=True, undefined=StrictUndefined
    )
    script = environment.loader.get_source(environment, "ui.js")[0]
    script = script.replace("MODEL", model).replace("TOP_K", str(min(_TOP_K, len(bundle.labels))))
    html = environment.get_template("ui.html").render(
        label=bundle.manifest.config.catalogue.label,
        max_characters=config.max_name_characters,
        card=render_card((bundle.path / CARD).read_text("utf-8").partition("---\n# ")[2]),
        digest=bundle.digest,
        script=Markup(script),
    )
    script_hash = b64encode(sha256(script.encode()).digest()).decode()
    headers = {
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script_hash}'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }

    async def show(_: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    return show


def render_card(card: str) -> Markup:
    """Render Markdown; HTML in it, which a label may contain, is escaped."""
    html = MarkdownIt("js-default").render(card)
    scroll = '<div class="scroll" role="group" aria-label="Metrics" tabindex="0"><table>'
    return Markup(html.replace("<table>", scroll).replace("</table>", "</table></div>"))
