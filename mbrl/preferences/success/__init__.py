"""Success classifiers: labels of episodes and steps, an ensemble of logistic networks, and what judges it."""
