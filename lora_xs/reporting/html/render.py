"""The page as HTML: templates, one style sheet and one script, all in one file that fetches nothing.

Text is escaped wherever it comes from. The page's own policy (Content-Security-Policy, by the hash of the style and of
the script) lets it run nothing else and load nothing at all, also if something slipped through.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lora_xs.reporting.html.drawn import Drawn
from lora_xs.reporting.html.ledger import run_anchor, shared_anchor
from lora_xs.reporting.html.page import Page

PACKAGE = "lora_xs.reporting.html"
PAPERS = {"LoRA-XS": "https://arxiv.org/abs/2405.17604", "LoRA-SB": "https://arxiv.org/abs/2411.19557"}


def to_html(page: Page) -> str:
    """The whole file."""
    style, script = _own("page.css"), _own("page.js")
    environment = Environment(
        loader=PackageLoader(PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(data_uri=_data_uri, class_of=class_of)
    environment.globals.update(papers=PAPERS, run_anchor=run_anchor, shared_anchor=shared_anchor)
    return environment.get_template("page.html").render(
        page=page, style=Markup(style), script=Markup(script), style_hash=_hash(style), script_hash=_hash(script)
    )


def class_of(words: str) -> str:
    """A status as the name of a class."""
    return words.replace(" ", "-")


def _own(name: str) -> str:
    """A file of ours beside the templates, without its last line's end."""
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8").rstrip("\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(drawn: Drawn) -> str:
    return "data:image/png;base64," + base64.b64encode(drawn.png).decode()
