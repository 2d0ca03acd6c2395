"""The command line, as ``python -m qwidgets``."""

from qwidgets.cli import app

if __name__ == "__main__":
    app()
