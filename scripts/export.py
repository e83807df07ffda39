"""Turn a trained LoRA-XS adapter into a plain LoRA adapter, or into a merged model.

python scripts/export.py results/runs/…/s0-… --to exported               # plain LoRA, for stock PEFT or vLLM
python scripts/export.py results/runs/…/s0-… --to merged --merge         # the whole model, adapter merged in
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.exit_status import FINISHED, told_in_a_line
from lora_xs.imports import quiet_command


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Export as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="Turn a trained LoRA-XS adapter into plain LoRA, or merge it.")
    parser.add_argument("adapter", type=Path, help="folder of the adapter, or of its run")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; new, or empty")
    parser.add_argument(
        "--base", help="base model's folder or hub name (default: the run's, or what the adapter names)"
    )
    parser.add_argument("--merge", action="store_true", help="write the whole merged model instead of an adapter")
    options = parser.parse_args(arguments)
    quiet_command()
    from lora_xs.adapters.export import export_lora, free_folder, head_modules, load_adapted, run_base
    from lora_xs.atomic import new_folder

    place = free_folder(options.to)
    model = load_adapted(options.adapter, options.base or run_base(options.adapter))
    if options.merge:
        with new_folder(place) as temporary:
            model.merge_and_unload(safe_merge=True).save_pretrained(str(temporary))
    else:
        export_lora(model, place, head=head_modules(options.adapter))
    print(options.to)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
