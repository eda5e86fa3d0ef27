"""One file or folder per source: its subjects, and their scans as stacks."""
