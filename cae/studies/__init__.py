"""Many starts: studies, comparisons, label efficiency."""
