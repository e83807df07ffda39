"""Rows of JSON lines, JSON lists and Parquet files, where they are looked for, and what is said of a bad one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_xs.data import files
from lora_xs.data.files import HubFiles, gather_matching, gather_rows, read_rows, text_field
from lora_xs.data.hub import HubUnavailable
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

ROWS = [{"query": "a\u2028b", "n": 1}, {"query": "c", "n": 2}]
HUB = HubFiles("owner/rows", "c" * 40, ("one.json", "two.json"))


def request(root: Path | None, source: Literal["auto", "hub", "local", "package"] = "auto") -> Request:
    return Request("some/task", source, root, None, None)


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)


def test_the_three_forms_give_the_same_rows_each_with_its_place(tmp_path: Path) -> None:
    lines, listed, columns = tmp_path / "a.jsonl", tmp_path / "a.json", tmp_path / "a.parquet"
    lines.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    listed.write_text("\n" + json.dumps(ROWS, indent=1), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), columns)
    assert read_rows(lines, lines.read_bytes()) == [(f"{lines}:1", ROWS[0]), (f"{lines}:2", ROWS[1])]
    for path in (listed, columns):
        assert read_rows(path, path.read_bytes()) == [(f"{path}: row 1", ROWS[0]), (f"{path}: row 2", ROWS[1])]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"query": "a"}\n{"query":\n', ":2: not JSON"),
        ("a.jsonl", b'{"query": "a"}\n{"query": "\xff"}\n', ":2: not UTF-8 (byte 11 of the line)"),
        ("a.json", b'[\n{"query": "a"},\n{"query" "b"}]', ":3: not JSON (Expecting ':' delimiter at column 10)"),
        ("a.json", b'[\n"\xff"]', ":2: not UTF-8"),
        ("a.json", b'[{"query": "a"}', ":1: not JSON"),
        ("a.json", b"[]", ":1: no rows"),
        ("a.jsonl", b"", ":1: no rows"),
        ("a.parquet", b"PAR1", ": not a Parquet file"),
        ("a.jsonl", b'{"query": "a"}\n{"n": ' + b"1" * 5000 + b"}", ":2: not JSON that can be read"),
        ("a.jsonl", b'{"query": "a"}\n' + b"[" * 100_000, ":2: not JSON that can be read"),
        ("a.json", b"[" + b"1" * 5000 + b"]", ": not JSON that can be read"),
        ("a.json", b"[" * 100_000, ": not JSON that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(UserError) as raised:
        read_rows(tmp_path / name, content)
    assert str(raised.value).startswith(f"{tmp_path / name}{said}") and "\n" not in str(raised.value)


def test_a_parquet_file_damaged_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"query": [f"text number {n}" for n in range(2000)]}), path, use_dictionary=False)
    whole = path.read_bytes()
    refused = 0
    for place in range(4, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[place : place + 8] = bytes(byte ^ 0xFF for byte in damaged[place : place + 8])
        try:
            read_rows(path, bytes(damaged))
        except UserError as error:
            refused += str(error).startswith(f"{path}: not a Parquet file") and "\n" not in str(error)
    assert refused > 10


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["a"], "place: a row must be a JSON object, not list"),
        ({}, "place: field 'query' is missing (so is 'instruction')"),
        ({"query": 3}, "place: field 'query' must be a text, not int"),
        ({"instruction": None}, "place: field 'instruction' must be a text, not NoneType"),
        ({"query": " \n"}, "place: field 'query' is empty"),
        ({"query": "ab\ud83d"}, "place: field 'query' has half a character ('\\ud83d') at 2; correct the text"),
    ],
)
def test_a_field_that_is_not_the_text_it_should_be_is_named(row: object, said: str) -> None:
    with pytest.raises(UserError) as raised:
        text_field(row, "place", "query", "instruction")
    assert str(raised.value) == said


def test_the_first_local_name_the_folder_has_is_taken_and_its_digest_recorded(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.json").write_text(json.dumps(ROWS[:1]))
    rows, origin = gather_rows(request(tmp_path), ("a.json", "b.json", "c.json"), HUB, "nothing else")
    assert [row for _, row in rows] == ROWS
    digest = hashlib.sha256((tmp_path / "b.json").read_bytes()).hexdigest()
    assert origin == {"source": "local", "files": {"b.json": digest}}


def test_a_folder_of_other_tasks_does_not_hide_the_hub_and_its_files_follow_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(repo: str, name: str, revision: str) -> tuple[Path, str]:
        asked.append((repo, name, revision))
        (tmp_path / name).write_text(json.dumps([{"from": name}]))
        return tmp_path / name, "d" * 40

    monkeypatch.setattr(files, "fetch_hub_file", fetch)
    (tmp_path / "others").mkdir()
    rows, origin = gather_rows(request(tmp_path / "others"), ("a.json",), HUB, "nothing else")
    assert [row for _, row in rows] == [{"from": "one.json"}, {"from": "two.json"}]
    assert asked == [("owner/rows", "one.json", "c" * 40), ("owner/rows", "two.json", "d" * 40)]
    assert (origin["source"], origin["repo"], origin["revision"]) == ("hub", "owner/rows", "d" * 40)
    assert set(origin["files"]) == {"one.json", "two.json"}


def test_a_copy_of_a_known_file_says_whether_it_is_the_original(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"query": "a"}]')
    blob = "c7f12b4e3e3b9ef9e6a5f8de0000000000000000"
    exact = HubFiles("owner/copy", "c" * 40, ("a.json",), git_blob=BLOB)
    other = HubFiles("owner/copy", "c" * 40, ("a.json",), git_blob=blob)
    assert gather_rows(request(tmp_path), ("a.json",), exact, "")[1]["original"] is True
    assert gather_rows(request(tmp_path), ("a.json",), other, "")[1]["original"] is False


BLOB = "dddb6ecfaf229a576b2e191fca28b20d1f761feb"  # printf '[{"query": "a"}]' | git hash-object --stdin


def test_what_neither_source_has_is_said_with_the_ways_to_provide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(repo: str, name: str, revision: str) -> tuple[Path, str]:
        raise HubUnavailable(f"{repo} {name} is out of reach")

    monkeypatch.setattr(files, "fetch_hub_file", fail)
    with pytest.raises(UserError) as raised:
        gather_rows(request(None), ("a.json", "b.json"), HUB, "task=other")
    message = str(raised.value)
    assert message.startswith("task=some/task: owner/rows one.json is out of reach; ways to provide it: the hub")
    assert "data.root=<folder> or LORA_XS_DATA, with a.json or b.json" in message and message.endswith("task=other")
    with pytest.raises(UserError, match=r"no file .*a.json; ways to provide it"):
        gather_rows(request(tmp_path, "local"), ("a.json",), HUB, "task=other")
    with pytest.raises(UserError, match=r"no folder with a.json is named; ways to provide it: a folder"):
        gather_rows(request(tmp_path), ("a.json",), None, "task=other")
    with pytest.raises(UserError, match=r"data.source=hub: .*allowed: auto, local"):
        gather_rows(request(tmp_path, "hub"), ("a.json",), None, "task=other")


def test_matching_files_follow_one_another_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(json.dumps([{"from": name}]))
    rows, origin = gather_matching(request(tmp_path), "*/train.json", "the authors' repository")
    assert [row["from"] for _, row in rows] == ["a", "b"] and list(origin["files"]) == ["a/train.json", "b/train.json"]
    with pytest.raises(UserError, match=r"no file .*/\*/test.json; ways .* or the authors' repository"):
        gather_matching(request(tmp_path), "*/test.json", "the authors' repository")
    with pytest.raises(UserError, match="no folder is named; ways to provide it"):
        gather_matching(request(None), "*/train.json", "the authors' repository")
