"""Tokens and prices: what an expert's tool reports as the artifact of its tool message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from eapo_agents.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The billed tokens of one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    known: bool = True
    """False if the service did not report them."""
    cost_usd: float | None = None
    """The price that the service reports, which counts instead of the recipe's."""
    thought: str = ""
    """What the model wrote before its answer. It is kept in the ledger and never handed on."""


NOTHING = Usage()


class Price(Settings):
    """What an expert's tokens cost, in US dollars per million."""

    input_usd: float = Field(ge=0)
    """Price of the tokens that the expert reads."""
    output_usd: float = Field(ge=0)
    """Price of the tokens that the expert writes."""

    def cost_usd(self, usage: Usage) -> float | None:
        """Return what a call cost; None if its tokens are unknown and not free."""
        if not usage.known and (self.input_usd or self.output_usd):
            return None
        paid = self.input_usd * usage.prompt_tokens + self.output_usd * usage.completion_tokens
        return paid / 1e6


def cost_usd(usage: Usage, price: Price | None) -> float | None:
    """Return what a call cost: what its service says, else by the price; None if neither tells."""
    if usage.cost_usd is not None:
        return usage.cost_usd
    return price.cost_usd(usage) if price else None


def total(usages: Sequence[Usage]) -> Usage:
    """Return the tokens and thoughts of several calls together, without a price."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        known=all(usage.known for usage in usages),
        thought="\n\n".join(usage.thought for usage in usages if usage.thought),
    )


def total_usd(costs: Sequence[float | None]) -> float | None:
    """Return the sum of several costs; None if one is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


FREE = Price(input_usd=0.0, output_usd=0.0)
