"""One file per source: subjects and their stacks."""
