"""From an experiment's grid to finished runs. The state is the runs' folders: whatever else is lost, nothing is."""
