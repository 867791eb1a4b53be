"""Estimators by the names that the field of bandits gives them: logged feedback of single decisions."""
