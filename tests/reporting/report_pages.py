"""Small pages for tests: a few experiments with made-up records, or none."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from synthetic import write_synthetic
from synthetic_curves import enrich

from lora_xs.reporting.evidence import read_evidence
from lora_xs.reporting.page.make import Made, make_page
from lora_xs.reporting.page.render import render

EXPERIMENTS = ("table06_runtime", "table13_init_grid_mrpc", "sb_figure02_training_loss", "mini_math")


def synthetic_results(folder: Path) -> Path:
    """Records of every run of EXPERIMENTS below `folder`, marked synthetic."""
    write_synthetic(folder, EXPERIMENTS)
    enrich(folder, EXPERIMENTS)
    return folder


def page_of(folder: Path, names: tuple[str, ...] = EXPERIMENTS) -> tuple[Made, str]:
    """The page of these experiments from the records below `folder`, and its text."""
    made = make_page(names, read_evidence([folder]), [folder], names)
    return made, render(made.page)


class Reader(HTMLParser):
    """What a page holds: its tags with their attributes, ids, and the text of each table cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        """Every id, in order."""
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]
