"""How the tables and figures on fairness look to readers."""
