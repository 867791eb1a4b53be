"""Actions that are choices: which ones a log has, how they become one-hot vectors, which were allowed."""
