"""`python -m membound`."""

from membound.cli.app import main

if __name__ == "__main__":
    main()
