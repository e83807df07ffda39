"""A record is whole or absent, and its presence is "finished"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.atomic import new_folder, write_json
from lora_xs.records import Record, find_records, read_attempt, read_record, write_record


def record(status: str, signature: str = "abc") -> Record:
    return Record(status, {"signature": signature}, {"best": {"accuracy": 0.1}}, {"threads": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_final_records_come_back_as_written(tmp_path: Path, status: str) -> None:
    write_record(tmp_path, record(status))
    assert read_record(tmp_path) == record(status)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_attempts_never_look_finished_and_a_final_record_retires_them(tmp_path: Path, status: str) -> None:
    write_record(tmp_path, record(status))
    assert read_record(tmp_path) is None
    assert read_attempt(tmp_path) == record(status)
    write_record(tmp_path, record("finished"))
    assert read_attempt(tmp_path) is None


@pytest.mark.parametrize(
    "damage", ["", "{", '{"status": "finished"}', '{"status":"finished","run":{},"schema":1}', "[1]"]
)
def test_a_damaged_record_is_not_believed(tmp_path: Path, damage: str) -> None:
    (tmp_path / "record.json").write_text(damage)
    assert read_record(tmp_path) is None


def test_a_record_of_another_schema_or_with_an_attempts_status_is_not_believed(tmp_path: Path) -> None:
    path = write_record(tmp_path, record("finished"))
    for key, value in (("schema", 99), ("status", "failed")):
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        assert read_record(tmp_path) is None


def test_records_are_found_in_path_order_whatever_lies_between(tmp_path: Path) -> None:
    for name in ("b/s1", "a/s2", "a/s1"):
        write_record(tmp_path / name, record("finished", name))
    (tmp_path / "a" / "s3").mkdir()
    (tmp_path / "a" / "s3" / "record.json").write_text("broken")
    assert [r.signature for r in find_records(tmp_path)] == ["a/s1", "a/s2", "b/s1"]


def test_nan_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    with new_folder(place) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(RuntimeError), new_folder(place) as folder:
        (folder / "two").write_text("2")
        raise RuntimeError
    assert [p.name for p in place.iterdir()] == ["one"]
    with new_folder(place) as folder:
        (folder / "two").write_text("2")
    assert [p.name for p in place.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
