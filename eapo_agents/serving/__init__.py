"""Starts and keeps vLLM servers, which run in a separate environment."""
