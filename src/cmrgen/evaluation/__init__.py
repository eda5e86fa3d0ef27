"""Are the images good, true to what was asked, different enough, and safe to share? Stores in,
tables and sections out."""
