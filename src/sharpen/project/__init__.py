"""From one's own rows to a project: a commented recipe, a grader with its test, and a split of the data."""
