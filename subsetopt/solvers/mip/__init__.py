"""Mixed-integer backends: the models they are given, and the calls to them."""
