"""Tool-free evaluation, metrics and reports. A package of eapo-agents."""
