"""Published algorithms and other libraries to compare with."""
