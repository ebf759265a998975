"""The trace store: where trajectories live."""

from eapo_agents.store.trace_store import RunInfo, StoredTrajectory, TraceStore

__all__ = ["RunInfo", "StoredTrajectory", "TraceStore"]
