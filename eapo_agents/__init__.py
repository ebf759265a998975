"""EAPO agents: the nouns, the policy, experts, trace store, tasks and the `eapo` command."""

__version__ = "0.1.0"
