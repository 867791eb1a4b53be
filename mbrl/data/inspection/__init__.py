"""What is in a log: statistics, findings with remedies, and whether training may start."""
