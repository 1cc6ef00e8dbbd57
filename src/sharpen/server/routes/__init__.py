"""The routes: what is read of a request, and what is answered."""
