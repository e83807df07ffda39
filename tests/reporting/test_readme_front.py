"""The README's front says what the records say: its table is results/tables/mini_glue.md, its picture lies there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FRONT = re.compile(r"<!-- (results/tables/\w+\.md) -->\n(.*?)<!-- end -->", re.DOTALL)


def said(text: str) -> list[str]:
    """The first Markdown table in `text` and its footnotes, a line each."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    return [line.strip() for line in lines[first:] if line.startswith(("|", "<sup>"))]


def test_the_readme_s_measured_tables_are_those_of_the_records() -> None:
    fronts = FRONT.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert fronts, "no table between <!-- results/tables/….md --> and <!-- end -->"
    for file, text in fronts:
        assert said(text) == said((REPOSITORY / file).read_text(encoding="utf-8")), file


def test_what_the_readme_shows_or_names_lies_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    assert any(target.endswith(".png") for target in targets)
    assert [target for target in sorted(targets) if not (REPOSITORY / target).exists()] == []
