r"""A table as LaTeX: a float to `\input` where booktabs and graphicx are loaded; a wide one is several panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_xs.reporting.cell_text import PARTS, text_of
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.layout import Row
from lora_xs.reporting.noise import Status
from lora_xs.reporting.table import Table, own_notes, printed_notes

WHOLE, PANEL = 3, 2  # columns, of three parts each, that stay together; of a panel where there are more
BRIEF: dict[Status, str] = {"reproduced": "repr.", "within noise": "noise"}
LEGEND = (
    "repr.: within one standard error of the difference, which stands in parentheses; noise: within two; off: more."
)
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
SPECIALS = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "Σ": r"$\Sigma$"},
    **{"Δ": r"$\Delta$", "±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$", "ᵀ": r"$^{\top}$"},
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$"},
}
"""What LaTeX, or its default font, does not take as it is."""
DOCUMENT = r"""% Compiles as it is: pdflatex all.tex
\documentclass[a4paper]{{article}}
\usepackage[margin=12mm]{{geometry}}
\usepackage{{booktabs,graphicx}}
\renewcommand{{\tablename}}{{No.}}  % "Table" is what the papers count
\begin{{document}}
{inputs}
\end{{document}}
"""


def to_latex(table: Table) -> str:
    """The whole file: one `table` environment."""
    lines = [
        "% needs booktabs and graphicx",
        r"\begin{table}[p]",
        r"\centering",
        f"\\caption{{{escape(table.caption)}}}",
    ]
    lines.append(f"\\label{{tab:{table.name}}}")
    lines.append(r"\scriptsize")
    count = len(table.laid.columns)
    together, panel = (WHOLE, PANEL) if table.laid.has_published else (len(PARTS) * WHOLE, len(PARTS) * PANEL)
    width = count if count <= together else panel
    for first in range(0, count, width):
        lines += _panel(table, range(first, min(first + width, count)))
    notes = [f"\\textsuperscript{{{n}}}~{escape(note)}" for n, note in enumerate(table.notes, start=1)]
    if any(status in table.counts for status in ("reproduced", "within noise", "off")):
        notes.append(LEGEND)
    if notes:
        lines += [r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize", r"\par ".join(notes), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}", ""])


def document(names: Sequence[str]) -> str:
    """A document of all tables, which lie beside it."""
    return DOCUMENT.format(inputs="\n".join(f"\\input{{{name}.tex}}\n\\clearpage" for name in names))


def escape(text: str) -> str:
    """Text as LaTeX that prints it."""
    return "".join(SPECIALS.get(char, char) for char in text)


def _panel(table: Table, columns: range) -> Iterator[str]:
    laid, both = table.laid, table.laid.has_published
    heads = [*laid.heads, *_parameter_heads(table)]
    parts = len(PARTS) if both else 1
    total = len(heads) + parts * len(columns)
    yield FIT
    yield f"\\begin{{tabular}}{{{'l' * len(laid.heads)}{'r' * (total - len(laid.heads))}}}"
    yield r"\toprule"
    names = [escape(laid.columns[column]) for column in columns]
    if both:
        groups = [f"\\multicolumn{{{parts}}}{{c}}{{{name}}}" for name in names]
        yield " & ".join([*[""] * len(heads), *groups]) + r" \\"
        starts = [len(heads) + 1 + parts * number for number in range(len(columns))]
        yield " ".join(f"\\cmidrule(lr){{{start}-{start + parts - 1}}}" for start in starts)
        yield " & ".join([*map(escape, heads), *PARTS * len(columns)]) + r" \\"
    else:
        yield " & ".join([*map(escape, heads), *names]) + r" \\"
    for block in laid.blocks:
        yield r"\midrule"
        if block.title is not None:
            yield f"\\multicolumn{{{total}}}{{l}}{{\\textit{{{escape(block.title)}}}}} \\\\"
        for row in block.rows:
            yield " & ".join(_cells(table, row, columns)) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield r"\par\medskip"


def _parameter_heads(table: Table) -> list[str]:
    if not table.laid.has_parameters:
        return []
    return ["Parameters, ours", *(["published"] if table.laid.has_published else [])]


def _cells(table: Table, row: Row, columns: range) -> Iterator[str]:
    yield from map(escape, row.labels)
    if table.laid.has_parameters:
        yield f"{row.parameters:,}" if row.parameters is not None else "--"
        if table.laid.has_published:
            yield escape(row.printed_parameters or "–")
    for column in columns:
        yield from _parts(table, row.cells[column])


def _parts(table: Table, cell: Cell | None) -> Iterator[str]:
    text = text_of(cell)
    yield escape(text.ours) + (_mark(table, own_notes(cell)) if cell is not None else "")
    if table.laid.has_published:
        yield escape(text.published) + (_mark(table, printed_notes(cell)) if cell is not None else "")
        brief = BRIEF.get(cell.status, cell.status) if cell is not None else ""
        yield escape(text.comparison.replace(cell.status, brief) if cell is not None else "")


def _mark(table: Table, notes: Sequence[str]) -> str:
    return f"\\textsuperscript{{{table.marks(notes)}}}" if notes else ""
