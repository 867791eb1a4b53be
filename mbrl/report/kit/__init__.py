"""What all pages are made of: tables, charts, wording, HTML."""
