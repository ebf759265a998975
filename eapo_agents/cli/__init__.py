"""The `eapo` command."""
