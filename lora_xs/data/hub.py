"""One file of a dataset repository on the hub, at a stated commit, without ever waiting on a dead network."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, is_offline_mode, try_to_load_from_cache

from lora_xs.hub import offline

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubUnavailable(Exception):
    """A file the hub does not give, with the reason in words."""


def fetch_hub_file(repo: str, name: str, revision: str) -> tuple[Path, str]:
    """The local copy of file `name` of dataset `repo`, and the commit it belongs to.

    `datasets.load_dataset` is not used on purpose: offline it takes whatever commit was cached last. A commit that is
    cached needs no network; a moving revision (a branch) is asked for first and taken from the cache only when the hub
    cannot be reached. Proxies and `HF_ENDPOINT` count; `HF_HUB_OFFLINE=1` means no request at all.
    Raises HubUnavailable within seconds where the file is neither reachable nor cached.
    """
    cached = try_to_load_from_cache(repo, name, repo_type="dataset", revision=revision)
    known = Path(cached) if isinstance(cached, str) else None
    if known and _COMMIT.fullmatch(revision):
        return known, _commit(known)
    if offline():
        if known:
            return known, _commit(known)
        reason = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"{constants.ENDPOINT} does not answer"
        raise HubUnavailable(f"{repo} {name}@{revision} is not in the hub's cache and {reason}")
    try:
        path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    except Exception as error:  # the HTTP client's own among them, which cannot be named: see `lora_xs.hub.offline`
        raise HubUnavailable(f"{repo} {name}@{revision} was not given by the hub ({type(error).__name__})") from error
    return path, _commit(path)


def _commit(path: Path) -> str:
    parts = path.parts
    return parts[parts.index("snapshots") + 1]
