"""Graders that clients send: what of ours they are, what they may not do, and one graded at a time in a process."""
