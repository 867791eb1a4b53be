"""What people look at: figures, self-contained pages, terminal tables and summaries.

`tables`, `wording` and `summary` draw nothing; the rest imports matplotlib: import it where a page is made.
"""
