"""Reading what people have: tables of any kind, their cells and ids, folders as they are kept."""
