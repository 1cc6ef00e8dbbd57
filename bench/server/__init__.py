"""What `sharpen serve` bears: `python -m bench.server`."""
