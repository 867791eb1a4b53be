"""From estimates to a verdict: which of them count, risk, baseline, agreement, and what to do next."""
