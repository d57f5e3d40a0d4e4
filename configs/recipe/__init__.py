"""Recipes: one file per published result, with only the settings that differ from the defaults."""
