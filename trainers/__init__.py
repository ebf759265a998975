"""Trajectories to token rows to TRL."""
