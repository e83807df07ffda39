"""Started by torchrun: as `runs_of_ranks.py`, with the models of sharded runs sharded on CPUs.

accelerate takes its FSDP2 path on GPUs alone. Here it is told that these processes are such a place: from there on the
code is its own, torch's `fully_shard` on a mesh of CPUs, and this project's. A spec may come with `kill_at`, the step
after which all processes drop the run without another word, and `keep`, where a copy of its folder is then put.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from runs_of_ranks import outcome
from torch.distributed.tensor import DTensor

from lora_xs import processes
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.training import milestones
from lora_xs.training.trainer import RunTrainer


class Killed(BaseException):
    pass


def shard_on_cpus() -> None:
    """Let accelerate do on CPUs what it does on GPUs."""
    usual = AcceleratorState.__init__

    def init(state: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **named: Any) -> None:
        usual(state, *arguments, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None:
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if state._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(state._mixed_precision)
            state.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init
    processes._check_machine = lambda trainer, count, gpus: None


def watch() -> dict[str, Any]:
    """What the run at hand is seen to do: how many of its parameters were shards at its last step, the gradient's norm
    at each, and where it is to be killed."""
    seen: dict[str, Any] = {}
    step, clip = milestones.Milestones.on_step_end, RunTrainer._clip_grad_norm

    def on_step_end(callback: Any, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        parameters = list(callback.trainer.model_wrapped.parameters())
        seen["sharded"] = sum(isinstance(p, DTensor) for p in parameters), len(parameters)
        if state.global_step == seen["kill_at"]:
            raise Killed
        return step(callback, args, state, control, **rest)

    def clip_grad_norm(trainer: RunTrainer, model: Any) -> Any:
        norm = clip(trainer, model)
        seen["norms"].append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))
        return norm

    milestones.Milestones.on_step_end, RunTrainer._clip_grad_norm = on_step_end, clip_grad_norm
    return seen


if __name__ == "__main__":
    shard_on_cpus()
    seen = watch()
    told = []
    for planned in json.loads(Path(sys.argv[1]).read_text()):
        keep = planned.pop("keep", None)
        seen |= {"kill_at": planned.pop("kill_at", None), "norms": []}
        spec = RunSpec.from_json(planned)
        try:
            said = outcome(run(spec, command="torchrun"))
        except Killed:
            said = {"status": "killed"}
        if keep and os.environ["RANK"] == "0":
            shutil.copytree(spec.folder, keep)
        told.append({**said, "sharded": seen["sharded"], "norms": seen["norms"]})
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps(told))
