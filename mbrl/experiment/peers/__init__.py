"""Programs for the interpreters of other libraries; they import nothing of this package."""
