"""The factor store: the truncated SVDs kept on this machine, so that no weight is decomposed twice.

    python scripts/factors.py list      # what is stored, most recently used first
    python scripts/factors.py clear     # remove all of it; it is computed again when needed

The folder is `$LORA_XS_CACHE/factors`, else `~/.cache/lora_xs/factors`; `LORA_XS_CACHE_GB` bounds its size.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.exit_status import FINISHED, told_in_a_line


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """List or clear as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="List or clear the truncated SVDs stored on this machine.")
    parser.add_argument("action", choices=("list", "clear"))
    parser.add_argument("--root", type=Path, help="folder of the store (default: the one runs use)")
    options = parser.parse_args(arguments)
    from lora_xs.adapters.store import FactorStore

    store = FactorStore(options.root)
    if store.root is None:
        print("the store is off (LORA_XS_CACHE=off)")
    elif options.action == "clear":
        count, size = store.clear()
        print(f"removed {count} truncations, {size / 1e6:.1f} MB, from {store.root}")
    else:
        entries = store.entries()
        for entry in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            what = f"{entry.part:<6}  {entry.rank:5}"
            print(f"{entry.digest}  {what}  {entry.bytes / 1e6:9.2f} MB  {used}  {entry.algorithm}")
        total = sum(entry.bytes for entry in entries) / 1e9
        print(f"{len(entries)} truncations, {total:.3f} of {store.max_bytes / 1e9:g} GB, in {store.root}")
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
