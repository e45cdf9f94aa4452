"""JSON files: configurations and studies."""
