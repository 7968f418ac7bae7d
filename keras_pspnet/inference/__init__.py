"""Load models from any supported file and segment pictures with them."""
