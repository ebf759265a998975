"""LangGraph wiring: consult, solo and rollouts."""
