"""Failure prediction with a calibrated threshold."""
