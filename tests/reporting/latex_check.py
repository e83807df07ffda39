r"""A strict reading of the LaTeX that tables are written in: what pdflatex would refuse, this refuses too.

Environments nest, braces balance, characters are ASCII, specials are escaped, mathematics is closed, and every line of
a tabular has as many cells as its column specification.
"""

from __future__ import annotations

import re

ENVIRONMENT = re.compile(r"\\(begin|end)\{(\w+)\}")
TABULAR = re.compile(r"\\begin\{tabular\}\{([lrc]+)\}(.*?)\\end\{tabular\}", re.DOTALL)
SPAN = re.compile(r"\\multicolumn\{(\d+)\}\{[lrc]\}")
RULES = re.compile(r"\\(toprule|midrule|bottomrule|cmidrule\(lr\)\{\d+-\d+\})\s*")
COMMANDS = {
    *("begin", "end", "centering", "caption", "label", "resizebox", "ifdim", "width", "linewidth", "else", "fi"),
    *("toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "textit", "textsuperscript", "par", "medskip"),
    *("smallskip", "footnotesize", "scriptsize", "textbackslash", "textasciitilde", "textasciicircum"),
    *("Sigma", "Delta", "pm", "times", "top"),
}


def check_latex(text: str) -> int:
    """Assert all of the above; return how many lines of cells there are."""
    assert text.isascii(), {char for char in text if not char.isascii()}
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    body = re.sub(r"%$", "", body, flags=re.MULTILINE)  # a line's end that makes no space
    _nested(body)
    _balanced(body)
    unknown = set(re.findall(r"\\([A-Za-z]+)", body)) - COMMANDS
    assert not unknown, unknown
    plain = re.sub(r"\\(label|input)\{[^}]*\}|\\[&%$#_{}\\]", "", body)
    assert plain.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", plain)
    assert not set(outside) & set("%#_^"), [line for line in outside.splitlines() if set(line) & set("%#_^")]
    return sum(_tabular(columns, inside) for columns, inside in TABULAR.findall(body))


def _nested(body: str) -> None:
    open_now: list[str] = []
    for kind, name in ENVIRONMENT.findall(body):
        if kind == "begin":
            open_now.append(name)
        else:
            assert open_now and open_now.pop() == name, name
    assert not open_now, open_now


def _balanced(body: str) -> None:
    depth = 0
    for char in re.sub(r"\\[{}\\]", "", body):
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0


def _tabular(columns: str, inside: str) -> int:
    for first, last in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", inside):
        assert 1 <= int(first) <= int(last) <= len(columns)
    lines = [RULES.sub("", line).strip() for line in re.split(r"\\\\\n", inside)]
    assert lines[-1] == ""
    for line in lines[:-1]:
        cells = re.split(r"(?<!\\)&", line)
        spans = sum(int(n) - 1 for n in SPAN.findall(line))
        assert len(cells) + spans == len(columns), line
    return len(lines) - 1
