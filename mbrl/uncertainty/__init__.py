"""How unsure a model is of a step: measures of a posterior, by name, and penalties made of them."""
