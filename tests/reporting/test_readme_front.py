"""The README's front says what the records say: its table is results/tables/mini_glue.md, its picture lies there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FRONT = re.compile(r"<!-- (results/tables/\w+\.md) -->\n(.*?)<!-- end -->", re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """Cells of the first Markdown table in `text`, marks of footnotes left out."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.sub(r"<sup>.*?</sup>", "", line).strip("|").split("|")
            found.append([cell.strip() for cell in cells])
        elif found:
            break
    return [row for row in found if set("".join(row)) - set("-: ")]


def test_the_readme_s_measured_tables_are_those_of_the_records() -> None:
    fronts = FRONT.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert fronts, "no table between <!-- results/tables/….md --> and <!-- end -->"
    for file, text in fronts:
        assert rows(text) == rows((REPOSITORY / file).read_text(encoding="utf-8")), file


def test_what_the_readme_shows_or_names_lies_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    assert any(target.endswith(".png") for target in targets)
    assert [target for target in sorted(targets) if not (REPOSITORY / target).exists()] == []
