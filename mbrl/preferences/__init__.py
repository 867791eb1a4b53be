"""What people prefer: pairs of segments of a log as data, and reward models that are fitted to them."""
