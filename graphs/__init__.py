"""LangGraph wiring: consult, solo and rollouts. A package of eapo-agents."""
