"""Users' adapters on disk, and packed into one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from users import USERS, save_users

from lora_xs.adapters.packing import pack_adapters


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder a user of USERS."""
    return save_users(tmp_path_factory.mktemp("users"), USERS)


@pytest.fixture(scope="module")
def packed(folders, tmp_path_factory) -> Path:
    """A bundle of them all."""
    path = tmp_path_factory.mktemp("bundle") / "users.safetensors"
    pack_adapters(path, folders)
    return path
