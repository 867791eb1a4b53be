"""Better actions near a policy, each followed by that policy, and when to believe them."""
