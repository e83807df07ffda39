"""Sweeps: from an experiment's grid to finished runs, on one machine or on a cluster."""
