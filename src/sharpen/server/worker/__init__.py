"""A model's own process: `python -m sharpen.server.worker`, the only code of the server that imports torch."""
