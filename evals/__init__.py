"""Tool-free evaluation, metrics and reports."""
