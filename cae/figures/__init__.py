"""Figures. Matplotlib loads here alone."""
