"""Many users' LoRA-XS adapters in one file.

python scripts/bundle.py pack users.safetensors ada=results/runs/…/s0-… bob=…/adapter/best   # run or adapter folders
python scripts/bundle.py pack users.safetensors --under <folder>        # every user's folder in it, by its name
python scripts/bundle.py add users.safetensors eve=<folder>
python scripts/bundle.py list users.safetensors [--check]               # --check reads everything once
python scripts/bundle.py unpack users.safetensors ada --to <folder>     # a folder that PEFT loads
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, told_in_a_line
from lora_xs.imports import quiet_command


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    quiet_command()
    if options.action == "list":
        _list(options.bundle, options.check)
    elif options.action == "unpack":
        from lora_xs.adapters.bundle import Bundle

        with Bundle(options.bundle) as bundle:
            print(bundle.unpack(options.user, options.to))
    else:
        from lora_xs.adapters.packing import add_adapters, pack_adapters

        adapters = _named(options.adapters, options.under)
        if options.action == "pack":
            pack_adapters(options.bundle, adapters, dtype=options.dtype, heads=not options.no_heads)
        else:
            add_adapters(options.bundle, adapters, heads=not options.no_heads)
        print(options.bundle)
    return FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Many users' LoRA-XS adapters in one file.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (("pack", "make a bundle"), ("add", "add users to a bundle (copies the file once)")):
        action = actions.add_parser(name, help=text)
        action.add_argument("bundle", type=Path)
        action.add_argument("adapters", nargs="*", metavar="NAME=FOLDER", help="an adapter's folder, or a run's")
        action.add_argument("--under", type=Path, help="take every adapter in this folder, named as its own folder")
        action.add_argument("--no-heads", action="store_true", help="leave the trained heads out")
        if name == "pack":
            action.add_argument("--dtype", default="float32", help="of R: float32 (default), float16, bfloat16")
    listing = actions.add_parser("list", help="show what a bundle holds")
    listing.add_argument("bundle", type=Path)
    listing.add_argument("--check", action="store_true", help="read every user and compare checksums")
    unpacking = actions.add_parser("unpack", help="write one user's adapter as a folder")
    unpacking.add_argument("bundle", type=Path)
    unpacking.add_argument("user")
    unpacking.add_argument("--to", type=Path, required=True, help="folder to write; new, or empty")
    return parser


def _named(pairs: Sequence[str], under: Path | None) -> dict[str, Path]:
    from lora_xs.adapters.packing import adapters_under

    found = adapters_under(under) if under is not None else {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not folder:
            raise UserError(f"{pair!r}: give NAME=FOLDER, the user's name and the adapter's folder")
        if name in found:
            raise UserError(f"{name!r} is named twice; a user has one row")
        found[name] = Path(folder)
    return found


def _list(path: Path, check: bool) -> None:
    from lora_xs.adapters.bundle import Bundle

    with Bundle(path) as bundle:
        if check:
            bundle.verify()
        family, config = bundle.family, bundle.family.config
        ranks = sorted({module.rank for module in family.modules})
        row = family.R_numel * bundle.dtype.itemsize
        print(f"{len(bundle)} users, {path.stat().st_size / 1e6:.2f} MB, {row:,} bytes of R each ({bundle.dtype})")
        print(f"rank {', '.join(map(str, ranks))}, alpha {config['lora_alpha']:g}, {len(family.modules)} modules")
        print(f"targets {config['target_modules']}")
        print(f"factors {family.modules[0].fingerprint.recipe}, {'embedded' if family.embeds_factors else 'rebuilt'}")
        heads = f"{family.head_numel * 4:,} bytes each" if family.head else "none kept"
        print(f"heads {heads}; base {config.get('base_model_name_or_path') or 'not named'}")
        for user in bundle.users:
            print(f"{user}  rounding {bundle.rounding(user):.1e}")


if __name__ == "__main__":
    sys.exit(main())
