"""From raw robot files to a dataset, by a schema that says what the columns are."""
