"""Tables of a trace store, the same on SQLite and PostgreSQL.

Nothing in them is ever changed or deleted, except claims and rollouts that failed and were run
again, which move to `failed_attempts`. Token ids are little-endian int32,
logprobs little-endian float32, one blob a turn; a turn holds the tokens that it added to its
parent.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

meta = Table(
    "eapo_meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("package_version", String, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("sampling", Text, nullable=False),
    Column("policy", Text, nullable=False),
)

problems = Table(
    "problems",
    metadata,
    Column("digest", String, primary_key=True),
    Column("problem", Text, nullable=False),
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String, ForeignKey(runs.c.run_id), nullable=False),
    Column("group_key", String, nullable=False),
    Column("rollout", Integer, nullable=False),
    Column("problem", String, ForeignKey(problems.c.digest), nullable=False),
    Column("created_at", String, nullable=False),
    Column("graph", String, nullable=False),
    Column("role", String, nullable=False),
    Column("stop_reason", String, nullable=False),
    Column("answer", Text),
    Column("reward", Float),
    Column("correct", Boolean),
    Column("error", Text),
    Column("policy", Text, nullable=False),
    Column("sampling", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("global_step", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    UniqueConstraint("run_id", "group_key", "rollout"),
)

failed_attempts = Table(
    # rollouts that failed and were run again: what stood in the place of today's trajectory
    "failed_attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("group_key", String, nullable=False),
    Column("rollout", Integer, nullable=False),
    Column("created_at", String, nullable=False),
    Column("error", Text, nullable=False),
    Column("duration_s", Float, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("trajectory_id", Integer, ForeignKey(trajectories.c.id), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("turn_id", String, nullable=False),
    Column("parent", Integer),
    Column("context_ids", LargeBinary, nullable=False),
    Column("completion_ids", LargeBinary, nullable=False),
    Column("logprobs", LargeBinary),
    Column("text", Text, nullable=False),
    Column("finish_reason", String, nullable=False),
    # of turns whose weights or sampling are not their trajectory's
    Column("policy", Text),
    Column("sampling", Text),
)

api_turns = Table(
    # what the service of an API model counted for a turn, which has no tokens; the table is made
    # with the first such turn, so that stores of before are read as they are
    "api_turns",
    MetaData(),
    Column("trajectory_id", Integer, primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Float),
)

reward_parts = Table(
    # parts of a reward by name, in their order; made with the first of them, as `api_turns` is
    "reward_parts",
    MetaData(),
    Column("trajectory_id", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("value", Float, nullable=False),
)

consultations = Table(
    "consultations",
    metadata,
    Column("trajectory_id", Integer, ForeignKey(trajectories.c.id), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("expert", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("status", String, nullable=False),
    Column("rho", Float, nullable=False),
    Column("u", Float, nullable=False),
    Column("latency_s", Float, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("cost_usd", Float, nullable=False),
    Column("error", Text),
)

claims = Table(
    "claims",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("group_key", String, primary_key=True),
    Column("owner", String, nullable=False),
)

processes = Table(
    # processes that write from several machines tell here that they live
    "processes",
    metadata,
    Column("owner", String, primary_key=True),
    Column("seen_at", Float, nullable=False),
)
