"""What a process says by the way it ends; each number stands here alone."""

FINISHED, FAILED, MISTAKE, DIVERGED = 0, 1, 2, 3
UNFIT = 70
"""Of a worker: its CUDA context is gone; another process goes on."""
REQUEUE = 75
"""Of a worker: it was asked to stop, its run is saved; whoever asked may start it again."""
INTERRUPTED = 130
