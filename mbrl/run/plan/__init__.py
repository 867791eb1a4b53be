"""Planning on top of a trained run, as stages."""
