"""Experts: LangChain tools that the policy may ask while it trains."""
