"""What runs jobs: their processes, followed from start to end."""
