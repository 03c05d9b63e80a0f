"""The command line: commands that call one function and show what it returned; no logic."""

from sarzarr.cli.main import main as main
