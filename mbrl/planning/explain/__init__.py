"""Why a plan is what it is, and what planning gains over the policy."""
