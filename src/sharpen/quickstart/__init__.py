"""The packaged recipe behind `sharpen quickstart`."""
