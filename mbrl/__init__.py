"""Model-based offline reinforcement learning."""
