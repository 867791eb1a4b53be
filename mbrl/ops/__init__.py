"""Pure tensor functions: no classes, no state."""
