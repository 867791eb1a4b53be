"""What a planner plans in: the step, the prior, the values at the leaves, the cost of uncertainty."""
