"""The one entrypoint: compose a config, run one RunSpec, print its result; see `python train.py --help`.

python train.py task=glue/mrpc method=lora_xs rank=16
"""

from __future__ import annotations

import sys

from lora_xs.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
