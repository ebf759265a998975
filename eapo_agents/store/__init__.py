"""The trace store: where trajectories live."""

from eapo_agents.store.table_rows import StoredTrajectory
from eapo_agents.store.trace_store import RunInfo, TraceStore

__all__ = ["RunInfo", "StoredTrajectory", "TraceStore"]
