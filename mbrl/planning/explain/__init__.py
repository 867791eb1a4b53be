"""Why a plan is what it is: its trace through the model, and the trees of a search."""
