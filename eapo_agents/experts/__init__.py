"""Experts: LangChain tools that the policy may ask during training."""
