"""The graders that a project begins with, one file each: they are copied into it as they are, and stand alone."""
