"""`python -m b3dist` is the `b3dist` command."""

from b3dist.cli.main import main

if __name__ == "__main__":
    main()
