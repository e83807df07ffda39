"""All benchmarks, one after another, into results/benchmarks.md: every target met or missed, and how costs grow.

    python benchmarks/report.py [--again] [--quick] [--only step factors …] [--folder FOLDER]

What a script found is kept in `<folder>/benchmarks/<script>.json` and not measured again, so that an interrupted
report goes on where it was; `--again` measures anew. Curves are drawn beside it. LORA_XS_DATA names the folder of real
rows that some scripts want; without it, and without an optional peer, a row says what is missing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import side_by_side  # isort: skip (before torch)

from lora_xs.atomic import replace_file, write_json, write_text
from lora_xs.environment import describe_environment

HERE = Path(__file__).resolve().parent
MARK = "arguments(__doc__, rounds="  # a script with it has the common options


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is not there yet and write the report; exit status 1 where a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=scripts(), default=scripts(), help="some of the scripts")
    parser.add_argument("--folder", type=Path, help="default: results; of --quick: outputs, which nothing else reads")
    options = parser.parse_args(words)
    folder = options.folder or side_by_side.REPOSITORY / ("outputs" if options.quick else "results")
    kept = folder / "benchmarks"
    failed = [
        name
        for name in options.only
        if (options.again or not (kept / f"{name}.json").is_file()) and not measure(name, options.quick, kept)
    ]
    found = {name: json.loads(file.read_text()) for name in scripts() if (file := kept / f"{name}.json").is_file()}
    curves = [item for script in found.values() for item in script["found"] if "curve" in item]
    for curve in curves:
        draw(curve, kept / f"{slug(curve['curve'])}.png")
    write_text(folder / "benchmarks.md", report(found, curves))
    print(f"{folder / 'benchmarks.md'}", *(f"failed: {name}" for name in failed), sep="\n")
    return 1 if failed else 0


def scripts() -> list[str]:
    """The scripts that have the common options, by name."""
    return sorted(file.stem for file in HERE.glob("*.py") if file != Path(__file__) and MARK in file.read_text())


def measure(name: str, quick: bool, kept: Path) -> bool:
    """Run one script and keep what it found; whether it ended well."""
    print(f"{name} …", flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file), *(["--quick"] if quick else [])]
        if subprocess.run(command, cwd=side_by_side.REPOSITORY).returncode or not file.is_file():
            return False
        found = json.loads(file.read_text())
    write_json(
        kept / f"{name}.json",
        {
            "taken": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seconds": round(time.perf_counter() - began),
            "quick": quick,
            "threads": side_by_side.threads(),
            "machine": describe_environment(),
            "found": found,
        },
    )
    return True


def report(found: dict[str, Any], curves: Sequence[dict[str, Any]]) -> str:
    """The page."""
    rows = [item for script in found.values() for item in script["found"] if "question" in item]
    aimed = [row for row in rows if row["target"] is not None]
    met = sum(row["met"] is True for row in aimed)
    missing = sum(row["ratio"] is None for row in aimed)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios of ours to the other side, medians of alternating runs, least and most beside",
        "them; what could not be reached says why.",
        "",
        *machine(found),
        "",
        f"{met} of {len(aimed)} targets met" + (f", {missing} not measured" if missing else "") + ".",
        "",
        "| question | ratio (least–most) | target | met | measured | note |",
        "|---|---|---|---|---|---|",
        *(line(row) for row in sorted(aimed, key=lambda row: row["met"] is not True)),
        "",
        "## Beside the targets",
        "",
        "| question | ratio (least–most) | measured | note |",
        "|---|---|---|---|",
        *(line(row, aimed=False) for row in rows if row["target"] is None),
        "",
        "## How cost grows",
        "",
        *(text for curve in curves for text in table(curve)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def machine(found: dict[str, Any]) -> Iterable[str]:
    """When and on what, a line for every distinct answer."""
    said: dict[str, list[str]] = {}
    for name, script in found.items():
        here, versions = script["machine"]["hardware"], script["machine"]["versions"]
        where = f"{here['cpu']}, {here['cores']} cores, {here['gpu'] or 'no GPU'}; {script['threads']}"
        what = ", ".join(f"{package} {version}" for package, version in versions.items())
        quick = "; quick, so not for comparison" if script["quick"] else ""
        commit = (script["machine"]["commit"] or "unknown")[:8]
        text = f"{script['taken']}, {where}; {what}; commit {commit}{quick}"
        said.setdefault(text, []).append(f"{name} ({script['seconds']} s)")
    for text, names in said.items():
        yield f"- {', '.join(names)}: {text}."


def line(row: dict[str, Any], aimed: bool = True) -> str:
    """A row of the table."""
    if row["ratio"] is None:
        ratio, verdict = "", "not measured"
    else:
        ratio = f"{row['ratio']:.3g}"
        if row["least"] != row["most"]:
            ratio += f" ({row['least']:.3g}–{row['most']:.3g})"
        verdict = {True: "yes", False: "**no**", None: ""}[row["met"]]
    cells = [row["question"], ratio]
    if aimed:
        cells += [f"≤ {row['target']:g}", verdict]
    return "| " + " | ".join(text.replace("|", "\\|") for text in (*cells, row["what"], row["note"])) + " |"


def table(curve: dict[str, Any]) -> Iterable[str]:
    """A curve's points and its picture."""
    slope = "" if curve["slope"] is None else f"Slope {curve['slope']:.2f} of {curve['slope_of']}."
    yield from (f"### {curve['curve'].capitalize()}", "", slope, "")
    yield f"| {curve['x']} | " + " | ".join(f"{x:g}" for x, _ in curve["points"]) + " |"
    yield "|---" * (1 + len(curve["points"])) + "|"
    yield f"| {curve['y']} | " + " | ".join(f"{y:.4g}" for _, y in curve["points"]) + " |"
    yield from ("", f"![{curve['curve']}](benchmarks/{slug(curve['curve'])}.png)", "")


def draw(curve: dict[str, Any], file: Path) -> None:
    """The curve on logarithmic axes; ratios on a plain one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x, y = zip(*curve["points"], strict=True)
    figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
    axes.plot(x, y, marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    if "ratio" in curve["y"]:
        axes.set_ylim(0, 1.15 * max(y))
    else:
        axes.set_yscale("log")
    axes.set_xlabel(curve["x"])
    axes.set_ylabel(curve["y"])
    axes.set_title(curve["curve"], fontsize="medium")
    axes.grid(alpha=0.3)
    replace_file(file, lambda partial: figure.savefig(partial, format="png", dpi=110, metadata={"Software": None}))
    plt.close(figure)


def slug(name: str) -> str:
    """A curve's name as a file's."""
    words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in name.lower()).split()
    return "-".join(words)


if __name__ == "__main__":
    sys.exit(main())
