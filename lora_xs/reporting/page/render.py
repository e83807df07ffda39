"""The page as text: a template, a style sheet and a script of this folder, nothing from anywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lora_xs.reporting.cell_text import LEGEND
from lora_xs.reporting.claims.paired import Verdict
from lora_xs.reporting.claims.show import RULE
from lora_xs.reporting.page.front import ClaimLine, Count, Fact
from lora_xs.reporting.page.section import Section

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Page:
    """All that the page shows. synthetic: a test made the records. newest: when the latest run began (UTC)."""

    sections: tuple[Section, ...]
    claims: tuple[ClaimLine, ...]
    counts: tuple[Count, ...]
    facts: tuple[Fact, ...]
    synthetic: bool
    newest: str

    @property
    def verdicts(self) -> list[tuple[str, int]]:
        """How many claims, each in a setting, our runs support, contradict or leave open; those without a run apart."""
        return _counted(claim.verdict for claim in self.claims if any(part.n for part in claim.parts))

    @property
    def published_verdicts(self) -> list[tuple[str, int]]:
        """The same of the papers' own numbers."""
        return _counted(claim.published for claim in self.claims if claim.published)

    @property
    def runs(self) -> int:
        """Different runs with a record, over all sections."""
        return len({run.signature for section in self.sections for run in section.runs})


def render(page: Page) -> str:
    """The whole HTML document. Text from records is escaped; the same page gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["slug"] = lambda text: text.replace(" ", "-")
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        page=page, style=style, script=script, legend=LEGEND, rule=RULE, groups=_groups(page.sections)
    )


def _counted(verdicts: Iterable[str]) -> list[tuple[str, int]]:
    found = Counter(verdicts)
    return [(verdict, found[verdict]) for verdict in get_args(Verdict)]


def _groups(sections: Sequence[Section]) -> list[tuple[str, list[Section]]]:
    """The table of contents: what we ran at our own size, then each paper."""
    titles = ("Runs of our own", "LoRA-XS", "LoRA-SB")
    inside: dict[str, list[Section]] = {title: [] for title in titles}
    for section in sections:
        papers = titles[2] if section.source.startswith(titles[2]) else titles[1]
        inside[papers if section.is_papers else titles[0]].append(section)
    return [(title, found) for title, found in inside.items() if found]
