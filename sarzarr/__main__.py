"""``python -m sarzarr``."""

from sarzarr.cli.main import main

if __name__ == "__main__":
    main()
