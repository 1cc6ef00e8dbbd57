"""The grader lab: what a grader says, whom it can be fooled by, and how well it agrees with others."""
