"""``python -m mmensemble``: the `mmensemble` command."""

from mmensemble.cli import main

if __name__ == "__main__":
    main()
