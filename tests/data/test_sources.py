"""Which source a request is served from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from lora_xs.data.sources import Request, resolve_source
from lora_xs.errors import UserError

GLUE = ("local", "hub")
REVIEWS = ("local", "package")


def request(source: Literal["auto", "hub", "local", "package"] = "auto", root: Path | None = None) -> Request:
    return Request("glue/mrpc", source, root, None, None)


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)


def test_without_a_folder_each_task_has_its_own_default() -> None:
    assert resolve_source(request(), GLUE) == "hub"
    assert resolve_source(request(), REVIEWS, local_holds="reviews") == "package"


def test_a_folder_given_or_in_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_source(request(root=tmp_path), GLUE) == "local"
    monkeypatch.setenv("LORA_XS_DATA", str(tmp_path))
    assert resolve_source(request(), GLUE) == "local"


def test_a_source_named_outright_wins_over_a_folder(tmp_path: Path) -> None:
    assert resolve_source(request("hub", tmp_path), GLUE) == "hub"
    assert resolve_source(request("package", tmp_path), REVIEWS) == "package"


def test_a_folder_without_reviews_does_not_hide_the_package(tmp_path: Path) -> None:
    assert resolve_source(request(root=tmp_path), REVIEWS, local_holds="reviews") == "package"
    (tmp_path / "reviews").mkdir()
    assert resolve_source(request(root=tmp_path), REVIEWS, local_holds="reviews") == "local"


def test_a_source_the_task_does_not_have_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"data.source=package: .*allowed: auto, local, hub"):
        resolve_source(request("package"), GLUE)


def test_local_without_a_folder_or_with_one_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set data.root=<folder> or LORA_XS_DATA"):
        resolve_source(request("local"), GLUE)
    with pytest.raises(UserError, match=r"data.root=.*/gone: no such folder"):
        resolve_source(request("local", tmp_path / "gone"), GLUE)
