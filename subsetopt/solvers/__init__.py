"""The solvers, one family per file. They never import each other; the registry finds them."""
