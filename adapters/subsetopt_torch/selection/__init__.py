"""From signals to a selection: the selector and what it hands to a solver."""
