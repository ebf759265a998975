"""What an expert's tool says of its reply beside the text: the tool message's artifact."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that one call was billed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


NOTHING = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input_usd: float = 0.0
    output_usd: float = 0.0

    def cost_usd(self, usage: Usage) -> float:
        """What a call cost."""
        paid = self.input_usd * usage.prompt_tokens + self.output_usd * usage.completion_tokens
        return paid / 1e6


FREE = Price()
