"""The throw-away cluster, for whoever asks for it."""

from throwaway_slurm import cluster

__all__ = ["cluster"]
