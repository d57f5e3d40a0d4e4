"""YAML files: the defaults of each command, and one recipe per published result."""
