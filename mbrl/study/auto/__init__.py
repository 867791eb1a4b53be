"""One log in, one policy out, or the word that there is none: a portfolio, judged by models alone."""
