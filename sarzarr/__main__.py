"""``python -m sarzarr``."""

from sarzarr.cli import main

if __name__ == "__main__":
    main()
