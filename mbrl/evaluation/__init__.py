"""What a policy returns in the simulator, on which scale, and how surely."""
