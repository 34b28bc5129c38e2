"""``python -m subsetopt`` is the command ``subsetopt``."""

from subsetopt.cli import main

if __name__ == "__main__":
    main()
