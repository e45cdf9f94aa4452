"""HTML pages of what was recorded."""
