"""Policies judged by a log alone, as stages: estimates, the back-test, the deployment report, selection."""
