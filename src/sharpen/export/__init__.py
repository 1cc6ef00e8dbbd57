"""A trained model in the forms others read, each proven to compute what the model does."""
