"""Other libraries, run in processes of their own."""
