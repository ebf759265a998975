"""The experts' budget: what a run may spend on calls, tokens and money."""

from __future__ import annotations

from dataclasses import dataclass

from eapo_agents.errors import BudgetError


@dataclass(slots=True, kw_only=True)
class Budget:
    """Limits and what is spent; None is no limit.

    The limit on calls is exact. Tokens and money are known when a reply is there: the calls in
    flight at that moment may go beyond it.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    spent_calls: int = 0
    spent_tokens: int = 0
    spent_usd: float = 0.0

    def reserve(self) -> None:
        """Takes one call out of the budget.

        Raises:
            BudgetError: it is spent.
        """
        for what, spent, limit in self.lines():
            if limit is not None and spent >= limit:
                raise BudgetError(
                    f"The experts' budget is spent: {spent:g} of {limit:g} {what}. What was done "
                    "is kept; go on with a larger consult.budget."
                )
        self.spent_calls += 1

    def release(self) -> None:
        """Gives a reserved call back: none went out."""
        self.spent_calls -= 1

    def add(self, *, tokens: int, usd: float) -> None:
        """Books what a call was billed."""
        self.spent_tokens += tokens
        self.spent_usd += usd

    def lines(self) -> list[tuple[str, float, float | None]]:
        """(unit, spent, limit) of each."""
        return [
            ("calls", self.spent_calls, self.calls),
            ("tokens", self.spent_tokens, self.tokens),
            ("US dollars", self.spent_usd, self.usd),
        ]
