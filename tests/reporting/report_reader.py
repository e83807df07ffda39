"""`scripts/report.py` as a module, and a page read back: its elements, strictly nested, with their text."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
VOID = {"meta", "link", "img", "br", "rect"}


def report_script() -> ModuleType:
    """scripts/report.py, imported."""
    spec = importlib.util.spec_from_file_location("report_script", REPOSITORY / "scripts" / "report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Element:
    """One element. inside: tags around it, outermost first. text: of it and of what is in it."""

    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    text: str = ""

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())


@dataclass
class PageText(HTMLParser):
    """Raises AssertionError where an end tag does not close the innermost open element."""

    elements: list[Element] = field(default_factory=list)
    stack: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {k: v or "" for k, v in attrs}, tuple(one.tag for one in self.stack))
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1].tag == tag, f"</{tag}> closes {self.stack[-1:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for element in self.stack:
            element.text += data

    def all(self, tag: str, css_class: str = "") -> list[Element]:
        return [one for one in self.elements if one.tag == tag and (not css_class or css_class in one.classes)]

    def by_id(self, name: str) -> Element:
        (found,) = (one for one in self.elements if one.attributes.get("id") == name)
        return found


def read_page(text: str) -> PageText:
    """Parse a whole page; everything opened must have been closed."""
    page = PageText()
    page.feed(text)
    page.close()
    assert not page.stack, page.stack[-1].tag
    return page
