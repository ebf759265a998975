"""The experts' budget: what a run may spend on calls, tokens and money."""

from __future__ import annotations

from dataclasses import dataclass

from eapo_agents.errors import BudgetError


@dataclass(slots=True, kw_only=True)
class Budget:
    """Limits and what is spent. None means unlimited.

    The limit on calls is exact. Tokens and money are known only when a reply has arrived, so calls
    in flight at that moment may exceed their limits.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
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
                    f"The experts' budget is spent: {spent:g} of {limit:g} {what}. What is done "
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
