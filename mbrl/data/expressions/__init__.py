"""A small language for rewards, terminations and derived columns; nothing of it is ever run as Python."""
