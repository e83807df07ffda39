"""One try at one run in a process that does many, and what came of it in a word."""

from __future__ import annotations

from lora_xs.atomic import out_of_space
from lora_xs.errors import UserError
from lora_xs.lease import RunBusy
from lora_xs.spec import RunSpec
from lora_xs.sweeps.verdict import Ending, Verdict, first_line
from lora_xs.sweeps.warm import Warm
from lora_xs.training.preemption import Preempted


def attempt(spec: RunSpec, warm: Warm, command: str = "") -> Verdict:
    """Run `spec` in this process; whatever it raises becomes a verdict."""
    ending: Ending
    try:
        ending, why = "diverged" if warm.run(spec, command=command).status == "diverged" else "finished", ""
    except RunBusy as busy:
        ending, why = "busy", str(busy)
    except Preempted as stopped:
        ending, why = "stopped", str(stopped)
    except KeyboardInterrupt:
        ending, why = "stopped", "interrupted"
    except UserError as mistake:
        ending, why = "failed", str(mistake)
    except Exception as error:
        ending, why = _kind(error), first_line(error)
    if ending in ("failed", "crashed"):
        warm.clear()  # what is kept may be what there was no room for
    return Verdict(ending, why)


def _kind(error: Exception) -> Ending:
    """A full disk or lack of memory is not the run's own doing; a CUDA error leaves no process fit for another run."""
    if out_of_space(error):
        return "full"
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "CUDA error" in str(error):
        return "crashed"
    return "failed"
