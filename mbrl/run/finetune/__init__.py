"""Offline to online by batches: trials of a policy become a new version of its log, on which it learns on."""
