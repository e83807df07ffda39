"""Many runs: from an experiment's grid to a plan, and from a plan to finished runs."""
