"""A log as estimators read it: padded arrays, ratios, who acted, and how far the ratios can be trusted."""
