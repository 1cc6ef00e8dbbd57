"""What stands before the routes: who may ask from where, how much, how fast, and in which words (Azure's too)."""
