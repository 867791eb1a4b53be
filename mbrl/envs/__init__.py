"""Task facts, and the only place that makes and steps a simulator."""
