"""The model hub: one short probe decides whether it is there; then cache or download, never a long wait."""

from __future__ import annotations

from pathlib import Path

from lora_xs.errors import UserError

WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"]
TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "added_tokens.json"]
NOT_NEEDED = ["original/*", "consolidated*", "onnx/*", "openvino/*"]
PROBE_SECONDS = 3.0


def offline() -> bool:
    """Whether to use the local hub cache only: asked for by HF_HUB_OFFLINE, or the hub does not answer in 3 seconds.

    Without this probe the hub's client retries a dead network for 23 seconds a file. Proxies and HF_ENDPOINT count.
    """
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return True
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=False)
    except Exception:  # the HTTP client, and with it its error classes, differs between huggingface_hub versions
        return True
    return bool(answer.status_code >= 500)  # a proxy with nothing behind it answers too


def model_snapshot(name: str, repository: str, revision: str | None) -> tuple[Path, str]:
    """Folder and commit of a model repository, downloaded if need be. `name` is the config's, for messages.

    Raises UserError, one line and in seconds, that names the model, the repository and the mend: where access was not
    granted, the hub has no such repository or revision, or the weights are neither cached nor reachable.
    """
    from huggingface_hub import errors, snapshot_download

    where = f"model={name}: {repository}" + (f" at revision {revision}" if revision else "")
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=WEIGHT_FILES + TOKENIZER_FILES,
            ignore_patterns=NOT_NEEDED,
            local_files_only=offline(),
        )
    except errors.HFValidationError as error:
        raise UserError(
            f"{where} is not the name of a repository; give model.hub=<owner>/<name> or model.path=<folder>"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{where} is unknown to the hub; correct model.revision, or leave it out for main") from error
    except Exception as error:  # a refusal of the hub, or the HTTP client's own error: see `offline`
        raise UserError(_why(where, repository, error)) from error
    path = Path(folder)
    if not any(path.glob("*.safetensors")):
        raise UserError(f"{where} has no *.safetensors there; other formats are not read; give model.path=<folder>")
    return path, path.name


def _why(where: str, repository: str, error: BaseException) -> str:
    """What kept a repository away, and its mend. The client hides a refusal behind an error about its cache."""
    from huggingface_hub import errors

    refusal = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    status = getattr(getattr(refusal, "response", None), "status_code", None)
    if isinstance(refusal, errors.GatedRepoError) or status == 403:
        return (
            f"{where} is gated; accept its licence at {_page(repository)}, then run `hf auth login` (or set HF_TOKEN) "
            "with a token that may read it, or give model.path=<folder>"
        )
    if isinstance(refusal, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"{where} is unknown to the hub, or private; correct model.hub, or run `hf auth login` with an account "
            "that may read it, or give model.path=<folder>"
        )
    return (
        f"{where} is not in the hub's cache and the hub is out of reach; fetch it where there is a connection "
        f"(`hf download {repository}`), give model.path=<folder with config.json and *.safetensors>, or use a model "
        "from a package: model=minilm (encoder), model=smollm2_135m (decoder)"
    )


def _page(repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"
