"""What an expert's tool says of its reply beside the text: the tool message's artifact."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that one call was billed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    known: bool = True
    """False where the service did not tell."""


NOTHING = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input_usd: float = 0.0
    output_usd: float = 0.0

    def cost_usd(self, usage: Usage) -> float | None:
        """What a call cost; None where its tokens are not known and have a price."""
        if not usage.known and (self.input_usd or self.output_usd):
            return None
        paid = self.input_usd * usage.prompt_tokens + self.output_usd * usage.completion_tokens
        return paid / 1e6


FREE = Price()
