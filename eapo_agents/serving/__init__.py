"""Starts and keeps vLLM servers, which live in an environment of their own."""
