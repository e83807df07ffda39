"""The file of points: whole lines stay, torn ones go, another subject begins anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.analysis.points import PointFile
from lora_xs.errors import UserError

HEADER = {"schema": 1, "signature": "abc"}


def test_points_are_read_back_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "points.jsonl"
    file = PointFile(path, HEADER)
    for number in range(3):
        file.append({"number": number})
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[:-cut])
        again = PointFile(path, HEADER)
        assert again.points == [{"number": 0}, {"number": 1}]
        again.append({"number": 2})
        assert path.read_bytes() == whole


def test_a_file_about_something_else_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    PointFile(path, HEADER).append({"number": 0})
    other = {**HEADER, "signature": "def"}
    assert PointFile(path, other).points == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == [other]


def test_a_whole_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    PointFile(path, HEADER)
    with open(path, "a") as file:
        file.write("[1]\n")
    with pytest.raises(UserError, match=r"points\.jsonl:2: not a JSON object; remove the file"):
        PointFile(path, HEADER)
