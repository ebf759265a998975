"""Trajectories to token rows to TRL. A package of eapo-agents."""
