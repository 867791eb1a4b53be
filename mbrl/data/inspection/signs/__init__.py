"""The signs of trouble in a log: one small pure function each, from a record to findings."""
