"""Weights in a GGUF file, dequantised once into a folder of the cache and read from there ever after.

What comes out is an ordinary model folder (config, fp32 safetensors, tokenizer): its numbers are those of the GGUF's
blocks, not of the model the blocks were rounded from.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import logging
import mmap
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_xs.atomic import new_folder, write_json
from lora_xs.cache import cache_root
from lora_xs.content import file_sha256
from lora_xs.errors import UserError

log = logging.getLogger(__name__)

FORMAT = 1  # of a converted folder; a change of what conversion makes must raise it
FACTS = "converted.json"  # in a converted folder: what it was made from, and its files

_temporary: dict[str, Path] = {}  # converted for this process alone, by the GGUF's digest


@dataclass(frozen=True)
class Converted:
    """A model folder made from a GGUF file. source: the GGUF's name and SHA-256; files: SHA-256 of the weights."""

    folder: Path
    source: dict[str, str]
    files: dict[str, str]


def require_gguf(what: str) -> None:
    """Raise UserError, saying for `what`, where the package that reads GGUF files is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{what}: reading its GGUF file needs the package gguf; run `pip install gguf`")


def from_gguf(file: Path) -> Converted:
    """The folder converted from `file`, made where there is none: about half a minute, once.

    It lies in the cache under the file's digest. Processes that come at once wait for the first. A folder whose files
    are not those that were written is made again. With the cache off, or not writable, the folder is a temporary one
    that goes when the process ends. Raises UserError for a missing or unreadable file.
    """
    if not file.is_file():
        raise UserError(f"{file.name}: no such file in its package; install the package again")
    digest = file_sha256(file)
    source = {"file": file.name, "sha256": digest}
    root = cache_root("models")
    if root is not None and digest not in _temporary:
        try:
            folder = root / hashlib.sha256(f"{digest} {FORMAT}".encode()).hexdigest()
            return Converted(folder, source, _kept(folder, file, source))
        except OSError as error:
            log.warning("converted weights are not kept: %s", error)
    if digest not in _temporary:
        folder = Path(tempfile.mkdtemp(prefix="lora_xs-model-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _convert(file, folder, source)
        _temporary[digest] = folder
    files = _sound_weights(_temporary[digest], source)
    if files is None:
        raise UserError(f"{file.name}: its converted weights in {_temporary[digest]} were changed; start again")
    return Converted(_temporary[digest], source, files)


def _kept(folder: Path, file: Path, source: dict[str, str]) -> dict[str, str]:
    """The weights of the kept folder, converted first where there are none. Raises OSError where none can be kept."""
    files = _sound_weights(folder, source)
    if files is None:
        with _alone(folder):
            files = _sound_weights(folder, source)  # another process may have made it meanwhile
            if files is None:
                with new_folder(folder) as partial:
                    _convert(file, partial, source)
                files = _sound_weights(folder, source)
    if files is None:
        raise OSError(f"{folder} does not hold what was written there")
    return files


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time gets in for `folder`; where the file system has no locks, all do."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w", encoding="ascii") as held:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _sound_weights(folder: Path, source: dict[str, str]) -> dict[str, str] | None:
    """SHA-256 by weight file of a folder converted from `source`; None unless every file is as it was written.

    A file of the same size and time is taken as untouched; of another time (copied), it is hashed.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["source"] != source or facts["format"] != FORMAT:
            return None
        for name, written in facts["files"].items():
            now = (folder / name).stat()
            if now.st_size != written["bytes"]:
                return None
            if now.st_mtime_ns != written["mtime_ns"] and file_sha256(folder / name) != written["sha256"]:
                return None
        return {name: w["sha256"] for name, w in facts["files"].items() if name.endswith(".safetensors")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _convert(file: Path, folder: Path, source: dict[str, str]) -> None:
    """Fill `folder` with the model of `file` in fp32, its tokenizer and FACTS."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    log.info("converting %s, once: about half a minute", file.name)
    began = time.perf_counter()
    try:
        # each of these reads all of the file's header, seconds a time: Auto's tokenizer and model would do so twice
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file.name}: not a readable GGUF file: {str(error).strip().partition(chr(10))[0]}") from error
    _split_as_declared(tokenizer, file)
    tokenizer.save_pretrained(folder)
    if hasattr(model.config, "quantization_config"):  # the weights are whole now, but the Trainer would refuse them
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors files are their owner's alone, a cache may be shared
    files = {
        path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
        for path in sorted(folder.iterdir())
    }
    seconds = round(time.perf_counter() - began, 1)
    write_json(folder / FACTS, {"source": source, "format": FORMAT, "files": files, "seconds": seconds})
    log.info("converted in %.0f s", seconds)


def _split_as_declared(tokenizer: Any, file: Path) -> None:
    """Split digits one by one where the GGUF says its tokenizer is SmolLM's, which transformers does not look at.

    llama.cpp does so too. Without it "\\n\\n3" and "  12" become other tokens than those the model was trained on.
    """
    from tokenizers import pre_tokenizers

    if _text(file, "tokenizer.ggml.pre") == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


def _text(file: Path, key: str) -> str | None:
    """A text of the file's header. An entry is the key's length and bytes, the type (8: text), the text's length and
    bytes; gguf's own reader goes through every token of the vocabulary for it, which takes seconds."""
    entry = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", 8)
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = mapped.find(entry) + len(entry)
        if start < len(entry):
            return None
        (length,) = struct.unpack_from("<Q", mapped, start)
        return mapped[start + 8 : start + 8 + length].decode("utf-8")
