"""Tokens and prices: what an expert's tool reports as the artifact of its tool message."""

from __future__ import annotations

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


FREE = Price(input_usd=0.0, output_usd=0.0)
