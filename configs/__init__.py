"""The YAML of eztorch_sce: what a run starts from, and one recipe per published result."""
