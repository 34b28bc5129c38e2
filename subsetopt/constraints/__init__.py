"""Which subsets are allowed: constraints in normal form, and subsets that keep to them."""
