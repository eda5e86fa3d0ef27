"""UK Biobank: folders of scans, tables of participants, diagnoses from several sources."""
