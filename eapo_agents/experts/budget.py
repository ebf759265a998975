"""The budget: what a run may spend on calls, tokens and money."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from eapo_agents.errors import BudgetError
from eapo_agents.settings import Settings


class BudgetLimits(Settings):
    """What a run may spend on experts, and on an API model as policy. A spent budget ends the run
    with exit status 4, and the same command continues with a larger one.

    The limit on calls is exact. Tokens and money are known only when a reply has arrived, so calls
    in flight at that moment may exceed their limits.
    """

    calls: int | None = Field(None, ge=0)
    """Most calls. `null` is no limit."""
    tokens: int | None = Field(None, ge=0)
    """Most tokens, read and written. `null` is no limit."""
    usd: float | None = Field(None, ge=0)
    """Most US dollars, which needs a price for each of them. `null` is no limit."""


class Budget(BudgetLimits):
    """The limits and what is spent."""

    model_config = ConfigDict(frozen=False)

    spent_calls: int = 0
    spent_tokens: int = 0
    spent_usd: float = 0.0

    def reserve(self) -> None:
        """Take one call out of the budget.

        Raises:
            BudgetError: the budget is spent.
        """
        for what, spent, limit in self.lines():
            if limit is not None and spent >= limit:
                raise BudgetError(
                    f"The run's budget is spent: {spent:g} of {limit:g} {what}. What is done "
                    "is kept: continue with a larger consult.budget."
                )
        self.spent_calls += 1

    def release(self) -> None:
        """Give a reserved call back, since it was never sent."""
        self.spent_calls -= 1

    def add(self, *, tokens: int, usd: float) -> None:
        """Add what a call was billed."""
        self.spent_tokens += tokens
        self.spent_usd += usd

    def lines(self) -> list[tuple[str, float, float | None]]:
        """Return (unit, spent, limit) for calls, tokens and money."""
        return [
            ("calls", self.spent_calls, self.calls),
            ("tokens", self.spent_tokens, self.tokens),
            ("US dollars", self.spent_usd, self.usd),
        ]
