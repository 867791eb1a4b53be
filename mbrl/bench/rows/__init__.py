"""What is measured: one file for each part of the system, found by the registry."""
