"""Stop before the limit, not after it."""

from __future__ import annotations

from gpt2dist.config.schema import BudgetConfig
from gpt2dist.track.ledger import Ledger


class BudgetGuard:
    """Says whether the next piece of work still fits what the user allowed to spend."""

    def __init__(self, budget: BudgetConfig, ledger: Ledger) -> None:
        self._budget = budget
        self._ledger = ledger

    def reason(self, tokens_done: int, next_tokens: int, seconds_reserve: float) -> str | None:
        """One line naming the limit that the next step would pass, or None.

        `seconds_reserve`: how long that step and the save after it may take. Seconds and dollars
        count over all attempts and machines of the run.
        """
        budget = self._budget
        now = self._ledger.now()
        spent = self._ledger.spent_at(now)
        ahead = self._ledger.spent_at(now + max(0.0, seconds_reserve))
        if budget.usd is not None and ahead.usd > budget.usd:
            limit, used = f"budget.usd={budget.usd:,.2f}", f"${spent.usd:,.2f} spent"
            passed = spent.usd > budget.usd
        elif budget.hours is not None and ahead.seconds / 3600 > budget.hours:
            hours = spent.seconds / 3600
            limit, used = f"budget.hours={budget.hours:g}", f"{hours:.2f} h used"
            passed = hours > budget.hours
        elif budget.tokens is not None and tokens_done + next_tokens > budget.tokens:
            limit, used = f"budget.tokens={budget.tokens:,}", f"{tokens_done:,} trained"
            passed = tokens_done > budget.tokens
        else:
            return None
        return f"{limit}: {used}, {'already past it' if passed else 'the next step would pass it'}"
