"""What the hub refuses or does not have is one line with model, repository and mend."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

import lora_xs.hub
from lora_xs.errors import UserError
from lora_xs.hub import model_snapshot

REPOSITORY = "google/gemma-7b"


def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("many lines\nof the hub's own", response=response)


def behind(cause: BaseException) -> errors.LocalEntryNotFoundError:
    error = errors.LocalEntryNotFoundError("nothing in the cache\nand so on")
    error.__cause__ = cause
    return error


GATED = r"is gated; accept its licence at \S+/google/gemma-7b, then run `hf auth login` .*give model.path=<folder>"
UNKNOWN = r"is unknown to the hub, or private; correct model.hub, or run `hf auth login`"
AWAY = r"is not in the hub's cache and the hub is out of reach; .*`hf download google/gemma-7b`.*smollm2_135m"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(errors.GatedRepoError, 401), GATED),
        (refusal(errors.GatedRepoError, 403), GATED),
        (behind(refusal(errors.HfHubHTTPError, 403)), GATED),
        (refusal(errors.RepositoryNotFoundError, 401), UNKNOWN),
        (refusal(errors.HfHubHTTPError, 401), UNKNOWN),
        (
            refusal(errors.RevisionNotFoundError, 404),
            r"revision main2 is unknown to the hub; correct model.revision",
        ),
        (behind(refusal(errors.HfHubHTTPError, 503)), AWAY),
        (errors.LocalEntryNotFoundError("no network"), AWAY),
        (ConnectionError("no route to host"), AWAY),
        (Exception("of the HTTP client's own class"), AWAY),
        (errors.HFValidationError("bad name"), r"is not the name of a repository; give model.hub=<owner>/<name>"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_refusal_of_the_hub_is_one_line_with_a_mend(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(lora_xs.hub, "offline", lambda: False)
    with pytest.raises(UserError, match=said) as raised:
        model_snapshot("gemma-7b", REPOSITORY, "main2")
    assert str(raised.value).startswith(f"model=gemma-7b: {REPOSITORY} at revision main2 ")
    assert "\n" not in str(raised.value)


def test_without_network_and_cache_the_real_client_gives_the_same_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"^model=gemma-7b: {REPOSITORY} {AWAY}[^\n]*$"):
        model_snapshot("gemma-7b", REPOSITORY, None)


def test_a_repository_without_safetensors_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UserError, match=r"google/gemma-7b has no \*.safetensors there; other formats are not read"):
        model_snapshot("gemma-7b", REPOSITORY, None)
