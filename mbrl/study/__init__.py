"""Many runs: comparisons laid out as tasks, the sweep that does them, and where it does them."""
