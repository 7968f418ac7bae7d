"""Load a model from any kind of file and segment pictures with it."""
